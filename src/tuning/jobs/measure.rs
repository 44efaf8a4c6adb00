//! How many tokens a file is to a model, and what a job on it will use.

use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;

use tunegate_dataset::{Figures, figures};

use super::Jobs;
use crate::domain::dataset::{counter_for, options_for};
use crate::domain::tuning::bill::Quote;
use crate::domain::tuning::lifecycle::Told;
use crate::domain::tuning::request::{Epochs, JobRequest};
use crate::domain::tuning::target::Target;
use crate::domain::tuning::{FileStatus, JobError, TrainingFile};
use crate::store::jobs::JobRow;
use crate::tuning::TuningError;
use crate::tuning::priced::training_price;

/// Bytes that are read at a time.
const READ_BYTES: usize = 256 << 10;

impl Jobs {
    /// What a job will use, by its training file.
    pub(super) async fn quoted(
        &self,
        job: &JobRow,
        file: Option<&TrainingFile>,
    ) -> Result<Quote, TuningError> {
        let request = JobRequest::parse(job.request.as_bytes())?;
        let live = self.catalog.load();
        let provider = live.catalog.providers.get(job.provider.as_str()).ok_or_else(|| {
            TuningError::invalid("model", format!("the provider `{}` is configured no more", job.provider))
        })?;
        let target = Target { provider: std::sync::Arc::clone(provider), model: job.base.as_str().into() };
        let kind = request.training_type.as_deref();
        let price = training_price(&self.prices.load(), &live.catalog, &target, kind, job.created_at_ms)?;
        let file = match file {
            Some(file) => file.clone(),
            None => self.files.held(&job.training_file).await?,
        };
        let measured = measure(self.files.path(&file).await?, job.base.clone()).await?;
        let (epochs, auto) = match request.epochs {
            Epochs::Of(epochs) => (epochs, false),
            Epochs::Auto => (u64::from(measured.epochs), true),
        };
        // only where time is billed does it matter
        let pace = if price.is_hourly() { self.paces().await?.at(&target) } else { None };
        Ok(Quote { tokens: measured.billed_tokens, epochs, auto, price, pace })
    }

    /// A file of a job. Whoever made the job may have died before it was noted that the job needs it: noted here, or found
    /// noted, and refused where the file was deleted before either.
    async fn needed(&self, job: &JobRow, id: &str) -> Result<TrainingFile, TuningError> {
        self.files.hold(id, &job.id).await?;
        self.files.held(id).await
    }

    /// How far the check of a job's files is.
    pub(super) async fn look_at_files(&self, job: &JobRow) -> Told {
        let sides =
            [(Some(&job.training_file), "training_file"), (job.validation_file.as_ref(), "validation_file")];
        let mut training = None;
        for (id, param) in sides.into_iter().filter_map(|(id, param)| Some((id?, param))) {
            let file = match self.needed(job, id).await {
                Ok(file) => file,
                Err(error) => return unsound(&error, param),
            };
            match file.status {
                FileStatus::Checking => return Told::Checking,
                FileStatus::Processed => {}
                FileStatus::Error => {
                    let error = JobError {
                        code: Some(format!("invalid_{param}")),
                        message: Some(
                            file.status_details.unwrap_or_else(|| "its check found errors".to_owned()),
                        ),
                        param: Some(param.to_owned()),
                    };
                    return Told::Unsound(error);
                }
            }
            training = training.or(Some(file));
        }
        match self.quoted(job, training.as_ref()).await {
            Ok(quote) => Told::Sound(quote),
            Err(error) => unsound(&error, "training_file"),
        }
    }
}

/// What is wrong for good ends a job; what is only away does not.
fn unsound(error: &TuningError, param: &str) -> Told {
    match error {
        TuningError::Unavailable(words) | TuningError::Busy(words) => {
            Told::Away { perhaps: false, again_ms: None, words: words.clone() }
        }
        error => Told::Unsound(JobError {
            code: Some(error.code().to_owned()),
            message: Some(error.to_string()),
            param: Some(error.param().unwrap_or(param).to_owned()),
        }),
    }
}

/// Counts a file, off the async threads: it may have hundreds of megabytes.
async fn measure(path: PathBuf, model: String) -> Result<Figures, TuningError> {
    let counting = tokio::task::spawn_blocking(move || {
        let file = BufReader::with_capacity(READ_BYTES, File::open(path)?);
        figures(file, &options_for(&model), &counter_for(&model))
    });
    let counted = counting.await.map_err(std::io::Error::other).and_then(|counted| counted);
    counted.map_err(|error| {
        tracing::error!(%error, "a training file can't be counted");
        TuningError::Unavailable(
            "the training file can't be read right now: try again in a moment".to_owned(),
        )
    })
}
