//! A loaded model: everything of one file that answers requests.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};
use tunegate_engine::{Activation, EncoderError, Engine, Gguf, GgufError, Shape};

use super::Config;
use super::text::{ChatTemplate, TemplateError, Tokenizer, TokenizerError};

/// Why a model file cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// There is no such file.
    #[error("no model file at {}: run `make model`, or name another with --model-file", .0.display())]
    Missing(PathBuf),
    /// The file is broken or of an unknown kind.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: GgufError,
    },
    /// Its tokenizer is.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// Its chat template is.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// It has more tokens than its matrices have rows.
    #[error("the tokenizer has {tokens} tokens, the model {rows}")]
    Vocabulary {
        /// Tokens of the tokenizer.
        tokens: usize,
        /// Rows of the embedding.
        rows: usize,
    },
    /// There is no such folder.
    #[error("no embedding model at {}: run `make model`, or leave out --embedding-model", .0.display())]
    MissingFolder(PathBuf),
    /// What is in the folder is broken, or of an unknown kind.
    #[error("{}: {source}", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What is wrong with it.
        source: EncoderError,
    },
    /// Its tokenizer is.
    #[error("{}: {why}", path.display())]
    EmbeddingTokenizer {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A name would mean two models.
    #[error("the model and the embedding model are both called {0}")]
    SameName(String),
}

/// Whether a model called `name` is meant by `asked`.
pub(super) fn is_meant(name: &str, asked: &str) -> bool {
    asked == name || asked.strip_prefix("local/").is_some_and(|asked| asked == name)
}

/// How a model's texts become tokens.
pub(super) struct Texts {
    pub(super) tokenizer: Arc<Tokenizer>,
    /// `None` for a base model without a chat template.
    pub(super) template: Option<ChatTemplate>,
}

impl Texts {
    /// Reads tokenizer and chat template of an open file.
    ///
    /// # Errors
    /// If either is missing what it needs, or of a kind we don't know.
    pub(super) fn load(gguf: &Gguf) -> Result<Self, LoadError> {
        let tokenizer = Tokenizer::load(gguf)?;
        let template = template(gguf, &tokenizer)?;
        Ok(Self { tokenizer: Arc::new(tokenizer), template })
    }
}

/// What answers requests, but for the engine, which its own thread owns.
pub(super) struct Model {
    /// The name it answers to.
    pub(super) name: String,
    /// How its texts become tokens.
    pub(super) texts: Texts,
    /// Positions of one request: the model's context, or less where memory is short.
    pub(super) context: usize,
    /// Changes when answers to the same seed may change.
    pub(super) fingerprint: String,
}

impl Model {
    /// Loads the file of `config`; takes some tenths of a second for a hundred megabytes.
    pub(super) fn load(config: &Config) -> Result<(Self, Engine), LoadError> {
        let path = &config.model_file;
        if !path.is_file() {
            return Err(LoadError::Missing(path.clone()));
        }
        let wrong = |source| LoadError::File { path: path.clone(), source };
        let mut gguf = Gguf::open(path).map_err(wrong)?;
        let activation = if config.eight_bits { Activation::Bits8 } else { Activation::Bits16 };
        let texts = Texts::load(&gguf)?;
        let engine = Engine::load(&mut gguf, activation).map_err(wrong)?;
        let shape = *engine.shape();
        let tokens = texts.tokenizer.vocabulary();
        if tokens > shape.vocabulary {
            return Err(LoadError::Vocabulary { tokens, rows: shape.vocabulary });
        }
        let budget = config.kv_budget_tokens.map_or(usize::MAX, NonZeroUsize::get);
        let model = Self {
            name: config.name.clone(),
            texts,
            context: shape.context.min(budget),
            fingerprint: fingerprint(path, &shape, activation),
        };
        Ok((model, engine))
    }

    /// Whether the model answers to `name`.
    pub(super) fn is_called(&self, name: &str) -> bool {
        is_meant(&self.name, name)
    }
}

fn template(gguf: &Gguf, tokenizer: &Tokenizer) -> Result<Option<ChatTemplate>, LoadError> {
    let Ok(source) = gguf.text("tokenizer.chat_template") else { return Ok(None) };
    let control = tokenizer.control_texts().map(str::to_owned).collect();
    let named = |key: &str| {
        let id = gguf.number(key).ok().and_then(|id| u32::try_from(id).ok());
        id.and_then(|id| tokenizer.control_text(id)).unwrap_or_default().to_owned()
    };
    let (beginning, end) = (named("tokenizer.ggml.bos_token_id"), named("tokenizer.ggml.eos_token_id"));
    Ok(Some(ChatTemplate::new(source.to_owned(), control, beginning, end)?))
}

/// Of the file's name and size, the model's shape, the arithmetic and our version: reading a hundred megabytes for a
/// hash at every start would buy little.
fn fingerprint(path: &Path, shape: &Shape, activation: Activation) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let size = path.metadata().map(|metadata| metadata.len()).unwrap_or_default();
    let version = env!("CARGO_PKG_VERSION");
    let digest = Sha256::digest(format!("{name} {size} {shape:?} {activation:?} {version}"));
    digest[..5].iter().fold("fp_".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}
