use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use half::{bf16, f16};
use safetensors::SafeTensors;
use safetensors::tensor::{TensorView, serialize};
use serde_json::{Value, json};

use super::*;
use crate::adapter::tests::{SHAPE, weights};

const LIMITS: AdapterLimits = AdapterLimits { rank: 64, size_bytes: 1 << 20 };

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("tunegate-peft-{}-{count}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// An adapter written by us.
    fn with(weights: &LoraWeights) -> Self {
        let folder = Self::new();
        write(&folder.0, weights, &SHAPE, "some/base").unwrap();
        folder
    }

    fn read(&self) -> Result<LoraWeights, AdapterError> {
        read(&self.0, &SHAPE, LIMITS)
    }

    fn config(&self) -> Value {
        serde_json::from_slice(&fs::read(self.0.join(CONFIG_FILE)).unwrap()).unwrap()
    }

    fn set(&self, key: &str, value: Value) -> &Self {
        let mut config = self.config();
        config[key] = value;
        fs::write(self.0.join(CONFIG_FILE), config.to_string()).unwrap();
        self
    }

    /// Rewrites all tensors in another width, without those that `keep` turns down.
    fn rewrite(&self, dtype: Dtype, keep: impl Fn(&str) -> bool) -> &Self {
        let bytes = fs::read(self.0.join(WEIGHTS_FILE)).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = file
            .iter()
            .filter(|(name, _)| keep(name))
            .map(|(name, tensor)| {
                let numbers = tensor.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b));
                let bytes = match dtype {
                    Dtype::F16 => numbers.flat_map(|x| f16::from_f32(x).to_le_bytes()).collect(),
                    Dtype::BF16 => numbers.flat_map(|x| bf16::from_f32(x).to_le_bytes()).collect(),
                    Dtype::F64 => numbers.flat_map(|x| f64::from(x).to_le_bytes()).collect(),
                    _ => numbers.flat_map(f32::to_le_bytes).collect(),
                };
                (name.to_owned(), tensor.shape().to_vec(), bytes)
            })
            .collect();
        let views = tensors
            .iter()
            .map(|(name, shape, bytes)| (name, TensorView::new(dtype, shape.clone(), bytes).unwrap()));
        fs::write(self.0.join(WEIGHTS_FILE), serialize(views, None).unwrap()).unwrap();
        self
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn adapter() -> LoraWeights {
    weights(&SHAPE, 3, &[Target::Query, Target::Value, Target::Down], 5)
}

#[test]
fn what_was_written_is_read_again() {
    for targets in [&Target::ALL[..], &[Target::Key]] {
        let weights = weights(&SHAPE, 3, targets, 7);
        assert_eq!(Folder::with(&weights).read().unwrap(), weights);
    }
}

#[test]
fn the_files_are_those_of_peft() {
    let weights = adapter();
    let folder = Folder::with(&weights);
    let config = folder.config();
    assert_eq!(config["peft_type"], "LORA");
    assert_eq!((&config["r"], &config["lora_alpha"]), (&json!(3), &json!(6)));
    assert_eq!(config["target_modules"], json!(["q_proj", "v_proj", "down_proj"]));
    assert_eq!(config["base_model_name_or_path"], "some/base");
    let bytes = fs::read(folder.0.join(WEIGHTS_FILE)).unwrap();
    let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    assert_eq!(metadata.metadata().as_ref().unwrap()["format"], "pt");
    let file = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.len(), 2 * 2 * 3);
    let tensor = |name: &str| {
        let tensor = file.tensor(&format!("base_model.model.model.layers.1.{name}.weight")).unwrap();
        let numbers = tensor.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b));
        (tensor.shape().to_vec(), numbers.collect::<Vec<f32>>())
    };
    let [query, value, down] = &weights.pairs[3..] else { panic!("three pairs") };
    assert_eq!(tensor("self_attn.q_proj.lora_A"), (vec![3, 64], query.a.clone()));
    assert_eq!(tensor("self_attn.v_proj.lora_B"), (vec![24, 3], value.b.clone()));
    assert_eq!(tensor("mlp.down_proj.lora_A"), (vec![3, 160], down.a.clone()));
    // llama.cpp's permute(): reshape(heads, 2, width / 2, …), then swap the two in the middle.
    let (shape, theirs) = tensor("self_attn.q_proj.lora_B");
    assert_eq!(shape, [96, 3]);
    for head in 0..8 {
        for half in 0..2 {
            for pair in 0..6 {
                let (hf, gguf) = (head * 12 + half * 6 + pair, head * 12 + pair * 2 + half);
                assert_eq!(theirs[hf * 3..][..3], query.b[gguf * 3..][..3], "{head} {half} {pair}");
            }
        }
    }
}

#[test]
fn others_may_read_the_files() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::with(&adapter());
    let mode = |name: &str| fs::metadata(folder.0.join(name)).unwrap().permissions().mode() & 0o777;
    fs::write(folder.0.join("usual"), "").unwrap();
    assert_eq!([mode(CONFIG_FILE), mode(WEIGHTS_FILE)], [mode("usual"); 2]);
}

#[test]
fn a_folder_appears_whole_and_is_never_written_over() {
    let folder = Folder::new();
    let place = folder.0.join("adapter");
    // What a killed try leaves.
    fs::create_dir(folder.0.join(".adapter.draft")).unwrap();
    fs::write(folder.0.join(".adapter.draft/rest"), "half").unwrap();
    write(&place, &adapter(), &SHAPE, "b").unwrap();
    assert!(write(&place, &weights(&SHAPE, 4, &[Target::Up], 1), &SHAPE, "b").is_err());
    assert_eq!(read(&place, &SHAPE, LIMITS).unwrap(), adapter());
    let names = |path: &Path| {
        let mut names: Vec<_> = fs::read_dir(path).unwrap().map(|file| file.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&folder.0), ["adapter"]);
    assert_eq!(names(&place), [CONFIG_FILE, WEIGHTS_FILE]);
    let mut broken = adapter();
    broken.pairs[0].a[0] = f32::INFINITY;
    assert!(write(&folder.0.join("other"), &broken, &SHAPE, "b").is_err());
    assert_eq!(names(&folder.0), ["adapter"]);
}

#[test]
fn narrower_numbers_are_read() {
    for (dtype, most) in [(Dtype::F16, 1e-3), (Dtype::BF16, 8e-3)] {
        let folder = Folder::with(&adapter());
        let found = folder.rewrite(dtype, |_| true).read().unwrap();
        for (found, exact) in found.pairs.iter().zip(adapter().pairs) {
            for (found, exact) in found.a.iter().zip(&exact.a).chain(found.b.iter().zip(&exact.b)) {
                assert!((found - exact).abs() <= most * exact.abs() + 1e-6, "{dtype:?} {found} {exact}");
            }
        }
    }
    let folder = Folder::with(&adapter());
    let error = folder.rewrite(Dtype::F64, |_| true).read().unwrap_err();
    assert!(error.to_string().contains("F64"), "{error}");
}

#[test]
fn settings_that_say_the_same_are_taken() {
    let cases: [(&str, Value); 13] = [
        ("target_modules", json!(["v_proj", "q_proj", "mlp.down_proj"])),
        ("target_modules", json!(r".*\.(q_proj|v_proj|down_proj)")),
        ("target_modules", json!(r"model\.layers\.[\d]{1,}\.(?:self_attn|mlp)\.(?:q_proj|v_proj|down_proj)")),
        ("modules_to_save", json!([])),
        ("rank_pattern", Value::Null),
        ("init_lora_weights", json!("gaussian")),
        ("layers_to_transform", json!([0, 1])),
        ("layers_pattern", json!("layers")),
        ("loftq_config", json!({})),
        ("megatron_core", json!("megatron.core")),
        ("task_type", Value::Null),
        ("qalora_group_size", json!(16)),
        ("a_later_setting", json!(false)),
    ];
    let folder = Folder::with(&adapter());
    let before = folder.config();
    for (key, value) in cases {
        let found = folder.set(key, value.clone()).read();
        assert_eq!(found.unwrap(), adapter(), "{key} = {value}");
        fs::write(folder.0.join(CONFIG_FILE), before.to_string()).unwrap();
    }
}

#[test]
fn settings_that_compute_otherwise_are_refused_by_name() {
    let cases: [(&str, Value, &str); 25] = [
        ("peft_type", json!("LOHA"), "LOHA"),
        ("peft_type", Value::Null, "peft_type"),
        ("bias", json!("lora_only"), "bias"),
        ("fan_in_fan_out", json!(true), "fan_in_fan_out"),
        ("use_dora", json!(true), "use_dora"),
        ("use_qalora", json!(true), "use_qalora"),
        ("lora_bias", json!(true), "lora_bias"),
        ("modules_to_save", json!(["lm_head"]), "modules_to_save"),
        ("rank_pattern", json!({"q_proj": 4}), "rank_pattern"),
        ("alpha_pattern", json!({"q_proj": 4}), "alpha_pattern"),
        ("init_lora_weights", json!("pissa"), "pissa"),
        ("layer_replication", json!([[0, 1]]), "layer_replication"),
        ("trainable_token_indices", json!([1, 2]), "trainable_token_indices"),
        ("alora_invocation_tokens", json!([1]), "alora_invocation_tokens"),
        ("a_later_setting", json!(1), "a_later_setting"),
        ("layers_pattern", json!("h"), "layers_pattern"),
        ("layers_to_transform", json!([7]), "names 7"),
        ("layers_to_transform", json!("all"), "layers_to_transform"),
        ("target_modules", json!(["c_attn"]), "target_modules"),
        ("target_modules", json!(r"(?=.*q_proj).*"), "pattern"),
        ("target_modules", json!("a)|(.*"), "pattern"),
        ("target_modules", json!(7), "target_modules"),
        ("r", json!(0), "rank"),
        ("r", json!("8"), "r is missing"),
        ("lora_alpha", json!(-1), "alpha"),
    ];
    let folder = Folder::with(&adapter());
    let before = folder.config();
    for (key, value, word) in cases {
        let error = folder.set(key, value.clone()).read().expect_err(key).to_string();
        assert!(error.contains(word), "{key} = {value}: {error}");
        fs::write(folder.0.join(CONFIG_FILE), before.to_string()).unwrap();
    }
    for broken in ["", "[]", "{", "{\"peft_type\": \"LORA\"}"] {
        fs::write(folder.0.join(CONFIG_FILE), broken).unwrap();
        assert!(matches!(folder.read(), Err(AdapterError::Malformed(_))), "{broken}");
    }
}

#[test]
fn the_other_scale_is_a_larger_alpha() {
    let folder = Folder::with(&adapter());
    let found = folder.set("use_rslora", json!(true)).read().unwrap();
    assert!((found.config.scale() - 6.0 / 3f64.sqrt()).abs() < 1e-12);
}

#[test]
fn left_out_layers_are_zeros_only_where_the_settings_say_so() {
    let second = |name: &str| name.contains("layers.1.");
    let cases = [
        ("layers_to_transform", json!([1])),
        ("layers_to_transform", json!(1)),
        ("exclude_modules", json!(r"model\.layers\.0\..*")),
        ("target_modules", json!(r".*layers\.1\..*(q_proj|v_proj|down_proj)")),
    ];
    for (key, value) in cases {
        let folder = Folder::with(&adapter());
        folder.rewrite(Dtype::F32, second);
        let error = folder.read().unwrap_err().to_string();
        assert!(error.contains("does not hold base_model.model.model.layers.0."), "{error}");
        let found = folder.set(key, value.clone()).read().unwrap();
        assert!(found.pairs[..3].iter().all(|pair| pair.a.iter().chain(&pair.b).all(|x| *x == 0.0)));
        assert_eq!(found.pairs[3..], adapter().pairs[3..], "{key} = {value}");
    }
}

#[test]
fn tensors_are_exactly_those_selected() {
    let folder = Folder::with(&adapter());
    folder.set("target_modules", json!(["q_proj", "v_proj"]));
    let error = folder.read().unwrap_err().to_string();
    assert!(error.contains("down_proj") && error.contains("not one of the 8"), "{error}");
    let folder = Folder::with(&adapter());
    let error = folder.set("r", json!(4)).read().unwrap_err().to_string();
    assert!(error.contains("has the shape [3, 64], not [4, 64]"), "{error}");
    let other = Shape { kv_heads: 4, ..SHAPE };
    let folder = Folder::with(&adapter());
    assert!(read(&folder.0, &other, LIMITS).is_err(), "another model");
    let deeper = Shape { layers: 3, ..SHAPE };
    assert!(read(&folder.0, &deeper, LIMITS).is_err(), "a deeper model");
}

#[test]
fn limits_hold_before_anything_is_read() {
    let folder = Folder::with(&adapter());
    let size = fs::metadata(folder.0.join(WEIGHTS_FILE)).unwrap().len();
    let limits = |rank, size_bytes| AdapterLimits { rank, size_bytes };
    assert!(read(&folder.0, &SHAPE, limits(3, size)).is_ok());
    for limits in [limits(2, size), limits(3, size - 1)] {
        assert!(matches!(read(&folder.0, &SHAPE, limits), Err(AdapterError::TooLarge { .. })));
    }
    fs::write(folder.0.join(CONFIG_FILE), " ".repeat(2 << 20)).unwrap();
    assert!(matches!(folder.read(), Err(AdapterError::TooLarge { .. })));
}

#[test]
fn numbers_that_are_none_are_refused() {
    for bad in [f32::NAN, f32::INFINITY] {
        let folder = Folder::with(&adapter());
        let path = folder.0.join(WEIGHTS_FILE);
        let mut bytes = fs::read(&path).unwrap();
        let end = bytes.len();
        bytes[end - 4..].copy_from_slice(&bad.to_le_bytes());
        fs::write(&path, bytes).unwrap();
        let error = folder.read().unwrap_err().to_string();
        assert!(error.contains("not finite"), "{error}");
    }
}

#[test]
fn a_file_cut_or_changed_anywhere_is_no_panic() {
    let folder = Folder::with(&weights(&SHAPE, 1, &[Target::Key], 1));
    let path = folder.0.join(WEIGHTS_FILE);
    let bytes = fs::read(&path).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    for length in (0..bytes.len()).step_by(7) {
        fs::write(&path, &bytes[..length]).unwrap();
        assert!(folder.read().is_err(), "cut at {length}");
    }
    for at in 0..header {
        for value in [0x00, 0x7F, 0xFF, b'9'] {
            let mut bytes = bytes.clone();
            bytes[at] = value;
            fs::write(&path, bytes).unwrap();
            // Sound or not, it must come back.
            let _ = folder.read();
        }
    }
}
