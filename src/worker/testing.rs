//! The model files that unit tests read.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use tunegate_engine::{Encoder, Gguf, Shape};

use super::EmbeddingConfig;
use super::embedding::EmbeddingModel;
use super::text::Tokenizer;

/// Opens the test model.
pub(super) fn model_file() -> Gguf {
    let asked = std::env::var_os("TUNEGATE_TEST_MODEL").map(PathBuf::from);
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("models/SmolLM2-135M-Instruct.Q4_1.gguf");
    let path = asked.unwrap_or(root);
    assert!(path.exists(), "the test model is missing: run `make model`, or set TUNEGATE_TEST_MODEL");
    Gguf::open(&path).unwrap()
}

/// Returns its tokenizer and shape, read once.
pub(super) fn tokenizer() -> (Arc<Tokenizer>, Shape) {
    static LOADED: OnceLock<(Arc<Tokenizer>, Shape)> = OnceLock::new();
    let load = || {
        let gguf = model_file();
        (Arc::new(Tokenizer::load(&gguf).unwrap()), Shape::read(&gguf).unwrap())
    };
    let (tokenizer, shape) = LOADED.get_or_init(load);
    (Arc::clone(tokenizer), *shape)
}

/// Returns the embedding model, called `mini`, read once.
pub(super) fn embedding_model() -> &'static (EmbeddingModel, Encoder) {
    static LOADED: OnceLock<(EmbeddingModel, Encoder)> = OnceLock::new();
    LOADED.get_or_init(|| {
        let asked = std::env::var_os("TUNEGATE_TEST_EMBEDDING_MODEL").map(PathBuf::from);
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("models/all-MiniLM-L6-v2");
        let folder = asked.unwrap_or(root);
        assert!(
            folder.is_dir(),
            "no embedding model: run `make model`, or set TUNEGATE_TEST_EMBEDDING_MODEL"
        );
        EmbeddingModel::load(&EmbeddingConfig { folder, name: "mini".to_owned() }).unwrap()
    })
}
