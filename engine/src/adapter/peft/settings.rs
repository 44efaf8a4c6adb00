//! `adapter_config.json`: what of it this engine computes, and what it must refuse.

use std::io;

use regex::{Regex, RegexBuilder};
use serde_json::{Map, Value, json};

use super::module_name;
use crate::adapter::{AdapterError, LoraConfig, Target};
use crate::gguf::Shape;

/// Settings that say nothing about what the adapter computes once it is trained.
const WITHOUT_EFFECT: [&str; 14] = [
    "auto_mapping",
    "base_model_name_or_path",
    "corda_config",
    "eva_config",
    "inference_mode",
    "loftq_config",
    "lora_ga_config",
    "megatron_config",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "task_type",
];
/// Settings that are read here; any other must be off.
const READ: [&str; 13] = [
    "alpha_pattern",
    "bias",
    "exclude_modules",
    "init_lora_weights",
    "layers_pattern",
    "layers_to_transform",
    "lora_alpha",
    "lora_dropout",
    "peft_type",
    "r",
    "rank_pattern",
    "target_modules",
    "use_rslora",
];
/// Beginnings that leave the base model as it is; others (PiSSA, OLoRA, LoftQ, CorDA) change it, and the file does not tell
/// how.
const HARMLESS_BEGINNINGS: [&str; 3] = ["gaussian", "orthogonal", "eva"];
/// Bytes that a compiled pattern may take.
const MOST_PATTERN_BYTES: usize = 1 << 20;

/// Names of linear layers, as PEFT selects them.
enum Names {
    None,
    /// `all-linear`: all but the head.
    All,
    /// Whole names, or what a name ends with behind a dot.
    Endings(Vec<String>),
    /// A regular expression for the whole name.
    Pattern(Regex),
}

impl Names {
    fn parse(key: &str, value: Option<&Value>) -> Result<Self, AdapterError> {
        match value {
            None | Some(Value::Null) => Ok(Self::None),
            Some(Value::String(all)) if key == "target_modules" && all.eq_ignore_ascii_case("all-linear") => {
                Ok(Self::All)
            }
            Some(Value::String(pattern)) => Ok(Self::Pattern(whole_pattern(key, pattern)?)),
            Some(Value::Array(names)) => {
                let names = names.iter().map(|name| name.as_str().map(str::to_owned));
                let names = names.collect::<Option<_>>();
                names.map(Self::Endings).ok_or_else(|| malformed(format!("{key} is no list of names")))
            }
            Some(_) => Err(malformed(format!("{key} is neither a list of names nor a pattern"))),
        }
    }

    fn select(&self, module: &str) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Endings(names) => names.iter().any(|name| {
                module.strip_suffix(name.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }),
            Self::Pattern(pattern) => pattern.is_match(module),
        }
    }
}

/// Compiles a pattern that must match from the first character to the last.
fn whole_pattern(key: &str, pattern: &str) -> Result<Regex, AdapterError> {
    let compile = |pattern: &str| RegexBuilder::new(pattern).size_limit(MOST_PATTERN_BYTES).build();
    // Alone first: a pattern such as `a)|(b` must not become sound by what is put around it.
    compile(pattern).and_then(|_| compile(&format!(r"\A(?:{pattern})\z"))).map_err(|error| {
        AdapterError::Unsupported(format!("the pattern in {key} is not understood here: {error}"))
    })
}

/// What is read of the file.
pub(super) struct Settings {
    pub(super) rank: usize,
    alpha: f64,
    dropout: f64,
    targets: Names,
    exclude: Names,
    /// The blocks that are adapted; `None` means all.
    layers: Option<Vec<usize>>,
}

impl Settings {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, AdapterError> {
        let value: Value = serde_json::from_slice(bytes)
            .map_err(|error| malformed(format!("adapter_config.json is no JSON: {error}")))?;
        let Value::Object(all) = value else {
            return Err(malformed("adapter_config.json is no object".to_owned()));
        };
        refuse_others(&all)?;
        let rank = whole(&all, "r")?;
        let alpha = real(&all, "lora_alpha", None)?;
        // LoraConfig knows one kind of scale, alpha / rank: the other, alpha / √rank, is a larger alpha.
        let alpha = if flag(&all, "use_rslora")? { alpha * (rank as f64).sqrt() } else { alpha };
        Ok(Self {
            rank,
            alpha,
            dropout: real(&all, "lora_dropout", Some(0.0))?,
            targets: Names::parse("target_modules", all.get("target_modules"))?,
            exclude: Names::parse("exclude_modules", all.get("exclude_modules"))?,
            layers: layers(&all)?,
        })
    }

    /// Whether the layer `target` of block `layer` is adapted.
    pub(super) fn selects(&self, layer: usize, target: Target) -> bool {
        let module = module_name(layer, target);
        self.layers.as_ref().is_none_or(|layers| layers.contains(&layer))
            && self.targets.select(&module)
            && !self.exclude.select(&module)
    }

    /// Returns what shapes the adapter in a model of this shape.
    pub(super) fn config(&self, shape: &Shape) -> Result<LoraConfig, AdapterError> {
        if let Some(beyond) = self.layers.iter().flatten().find(|layer| **layer >= shape.layers) {
            let found = shape.layers;
            return Err(malformed(format!("layers_to_transform names {beyond}; the model has {found}")));
        }
        let used = |target: &Target| (0..shape.layers).any(|layer| self.selects(layer, *target));
        let targets: Vec<Target> = Target::ALL.into_iter().filter(used).collect();
        if targets.is_empty() {
            let names = Target::ALL.map(Target::name).join(", ");
            return Err(malformed(format!("target_modules selects none of {names}")));
        }
        LoraConfig::new(self.rank, self.alpha, self.dropout, targets)
    }
}

/// Refuses every setting by which PEFT would compute something else.
fn refuse_others(all: &Map<String, Value>) -> Result<(), AdapterError> {
    match all.get("peft_type").and_then(Value::as_str) {
        Some("LORA") => {}
        Some(other) => return Err(unsupported(format!("its peft_type is {other}, not LORA"))),
        None => return Err(malformed("peft_type is missing".to_owned())),
    }
    match all.get("bias") {
        None | Some(Value::Null) => {}
        Some(Value::String(bias)) if bias == "none" => {}
        Some(other) => return Err(unsupported(format!("its bias is {other}; only \"none\" is computed"))),
    }
    match all.get("init_lora_weights") {
        None | Some(Value::Null | Value::Bool(_)) => {}
        Some(Value::String(beginning)) if HARMLESS_BEGINNINGS.contains(&beginning.as_str()) => {}
        Some(other) => {
            return Err(unsupported(format!(
                "init_lora_weights is {other}, which changes the base model; convert it to a plain LoRA first \
                 (path_initial_model_for_weight_conversion of PEFT's save_pretrained)"
            )));
        }
    }
    for key in ["rank_pattern", "alpha_pattern"] {
        if !is_off(all.get(key)) {
            return Err(unsupported(format!("{key} gives layers ranks or alphas of their own")));
        }
    }
    if !is_off(all.get("layers_pattern")) && !names_layers(all.get("layers_pattern")) {
        return Err(unsupported("layers_pattern is not \"layers\", llama's word for its blocks".to_owned()));
    }
    let known = |key: &&String| WITHOUT_EFFECT.contains(&key.as_str()) || READ.contains(&key.as_str());
    match all.iter().filter(|(key, _)| !known(key)).find(|(_, value)| !is_off(Some(value))) {
        None => Ok(()),
        Some((key, _)) => Err(unsupported(format!("it sets {key}, which this engine does not compute"))),
    }
}

/// Whether a setting is absent or says no.
fn is_off(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null | Value::Bool(false)) => true,
        Some(Value::Object(map)) => map.is_empty(),
        Some(Value::Array(list)) => list.is_empty(),
        Some(Value::String(text)) => text.is_empty(),
        Some(_) => false,
    }
}

fn names_layers(value: Option<&Value>) -> bool {
    match value {
        Some(Value::String(name)) => name == "layers",
        Some(Value::Array(names)) => names.iter().all(|name| name == "layers"),
        _ => false,
    }
}

/// Reads `layers_to_transform`: a number or a list of numbers, and only beside a list of names, as PEFT has it.
fn layers(all: &Map<String, Value>) -> Result<Option<Vec<usize>>, AdapterError> {
    let value = match all.get("layers_to_transform") {
        None | Some(Value::Null) => return Ok(None),
        Some(value) => value,
    };
    if !matches!(all.get("target_modules"), Some(Value::Array(_))) {
        return Err(malformed("layers_to_transform needs a list of target_modules".to_owned()));
    }
    let list = match value {
        Value::Array(list) => list.iter().map(Value::as_u64).collect::<Option<Vec<_>>>(),
        one => one.as_u64().map(|layer| vec![layer]),
    };
    let list = list.filter(|list| !list.is_empty());
    let list = list.ok_or_else(|| malformed("layers_to_transform holds no numbers of layers".to_owned()))?;
    Ok(Some(list.into_iter().map(|layer| usize::try_from(layer).unwrap_or(usize::MAX)).collect()))
}

fn whole(all: &Map<String, Value>, key: &str) -> Result<usize, AdapterError> {
    let number = all.get(key).and_then(Value::as_u64).and_then(|number| usize::try_from(number).ok());
    number.ok_or_else(|| malformed(format!("{key} is missing or no whole number")))
}

fn real(all: &Map<String, Value>, key: &str, absent: Option<f64>) -> Result<f64, AdapterError> {
    let number = all.get(key).map_or(absent, Value::as_f64);
    number.ok_or_else(|| malformed(format!("{key} is missing or no number")))
}

fn flag(all: &Map<String, Value>, key: &str) -> Result<bool, AdapterError> {
    match all.get(key) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(_) => Err(malformed(format!("{key} is neither true nor false"))),
    }
}

fn malformed(why: String) -> AdapterError {
    AdapterError::Malformed(why)
}

fn unsupported(why: String) -> AdapterError {
    AdapterError::Unsupported(why)
}

/// Returns the text of the file for an adapter of ours, with all that PEFT's readers ask for.
pub(super) fn text(config: &LoraConfig, base_model: &str) -> io::Result<Vec<u8>> {
    let targets: Vec<&str> = config.targets.iter().map(|target| target.name()).collect();
    let mut text = serde_json::to_vec_pretty(&json!({
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model,
        "revision": null,
        "inference_mode": true,
        "r": config.rank,
        "lora_alpha": whole_where_it_is(config.alpha),
        "lora_dropout": config.dropout,
        "target_modules": targets,
        "bias": "none",
        "fan_in_fan_out": false,
        "init_lora_weights": true,
        "layers_pattern": null,
        "layers_to_transform": null,
        "modules_to_save": null,
        "rank_pattern": {},
        "alpha_pattern": {},
        "use_dora": false,
        "use_rslora": false,
    }))?;
    text.push(b'\n');
    Ok(text)
}

/// Returns a number without a point where it is whole: some servers take no other alpha.
fn whole_where_it_is(number: f64) -> Value {
    if number.fract() == 0.0 { json!(number as u64) } else { json!(number) }
}
