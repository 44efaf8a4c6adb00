//! `[prices]` and what each deployment says of its price: the price file, whole or not at all, and where a deployment's
//! price comes from.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::clock;
use crate::domain::catalog::{Deployment, OnUnpriced, Pricing, ProviderKind};
use crate::domain::price::book::{Found, PriceBook, Sheets};
use crate::domain::price::read::{Problem, alone, sheets};

use super::file;
use super::problem::{Checker, Place};
use super::read;

/// The prices that are built in.
const BUILT_IN: &str = include_str!("../../config/prices.toml");

/// Reads the text of a price file.
///
/// # Errors
///
/// Everything that is wrong in it; then none of it counts.
pub fn parse(text: &str) -> Result<(Sheets, PriceBook), Vec<Problem>> {
    let whole = |message: String| vec![Problem { path: String::new(), message }];
    let sheets = sheets(&read::tree(text).map_err(whole)?)?;
    let book = PriceBook::new(&sheets, &[], 0)?;
    Ok((sheets, book))
}

/// The prices that are built in.
///
/// # Errors
///
/// Never, as long as its test passes.
pub fn built_in() -> Result<(Sheets, PriceBook), Vec<Problem>> {
    parse(BUILT_IN)
}

/// Reads a price file. Its version is its own word for it and a sign of its content: a file that changes without a new
/// word has another version all the same.
///
/// # Errors
///
/// That it can't be read, or everything that is wrong in it.
pub fn from_file(path: &Path) -> Result<(Sheets, PriceBook), Vec<Problem>> {
    let whole = |message: String| vec![Problem { path: String::new(), message }];
    let text = fs::read_to_string(path).map_err(|error| whole(format!("can't be read: {error}")))?;
    let (mut sheets, _) = parse(&text)?;
    sheets.version = format!("{}~{}", sheets.version, fingerprint(&text)).into();
    let book = PriceBook::new(&sheets, &[], 0)?;
    Ok((sheets, book))
}

/// The prices that the configuration brings, and what counts where there is none.
pub(super) struct Known {
    pub(super) sheets: Arc<Sheets>,
    book: PriceBook,
    on_unpriced: OnUnpriced,
}

/// Checks `[prices]` and reads the file that it names, else the built-in prices.
pub(super) fn check(written: &file::Prices, checker: &mut Checker<'_>) -> Known {
    let place = Place::top("prices");
    let read = match &written.file {
        Some(path) => from_file(path),
        None => built_in(),
    };
    match read {
        Ok((sheets, book)) => {
            let cap = written.cap_price.as_deref();
            let on_unpriced =
                on_unpriced(&place, written.on_unpriced, cap, &OnUnpriced::Deny, &book, checker);
            Known { sheets: Arc::new(sheets), book, on_unpriced }
        }
        Err(problems) => {
            let file = written.file.as_deref().unwrap_or(Path::new("the built-in prices")).display();
            for problem in problems {
                checker.wrong(&place.key("file"), format!("{file}: {}", line(&problem)));
            }
            Known { sheets: Arc::default(), book: PriceBook::default(), on_unpriced: OnUnpriced::Allow }
        }
    }
}

impl Known {
    /// What becomes of a deployment's requests without a known price.
    pub(super) fn on_unpriced(
        &self,
        place: &Place,
        written: &file::Deployment,
        checker: &mut Checker<'_>,
    ) -> OnUnpriced {
        let cap = written.cap_price.as_deref();
        on_unpriced(place, written.on_unpriced, cap, &self.on_unpriced, &self.book, checker)
    }

    /// Says what an operator should know of a deployment's price as it is now. Behind a `*` only the asked name tells.
    pub(super) fn look_at(&self, place: &Place, deployment: &Deployment, checker: &mut Checker<'_>) {
        let now_ms = clock::unix_ms();
        let (kind, model) = (deployment.provider.dialect.kind(), &deployment.upstream_model);
        let by_name = || self.book.find(kind, model, deployment.base_model.as_deref(), now_ms);
        if let Pricing::Explicit { price, .. } = &deployment.pricing {
            if let Some(far) = by_name().ok().and_then(|known| price.far_from(&known.price)) {
                checker.wrong(&place.key("price"), far);
            }
            return;
        }
        if deployment.pricing == Pricing::ByName && model.contains('*') {
            return;
        }
        match self.book.price_of(deployment, model, now_ms) {
            Err(unpriced) => checker.notice(place, format!("its requests are refused: {unpriced}")),
            Ok(Found { warning: Some(warning), .. }) => {
                checker.notice(place, format!("its price: {warning}"))
            }
            Ok(_) => {}
        }
    }
}

/// A problem on one line.
pub fn line(problem: &Problem) -> String {
    match problem.path.as_str() {
        "" => problem.message.clone(),
        path => format!("{path}: {}", problem.message),
    }
}

/// What a deployment says of its price.
pub(super) fn of_deployment(
    place: &Place,
    name: &str,
    written: &file::Deployment,
    checker: &mut Checker<'_>,
) -> Pricing {
    match (&written.price, &written.price_model) {
        (None, None) => Pricing::ByName,
        (None, Some(row)) => Pricing::Row(row.trim().into()),
        (Some(_), Some(_)) => {
            checker.wrong(&place.key("price_model"), "contradicts `price`: keep one");
            Pricing::ByName
        }
        (Some(price), None) => match alone(price) {
            Ok(read) => {
                let version = format!("config:{name}~{}", fingerprint(&price.to_string()));
                Pricing::Explicit { price: Arc::new(read), version: version.into() }
            }
            Err(problems) => {
                for problem in problems {
                    let below = problem.path.split('.').filter(|key| !key.is_empty());
                    let place = below.fold(place.key("price"), |place, key| place.key(key));
                    checker.wrong(&place, problem.message);
                }
                Pricing::ByName
            }
        },
    }
}

/// Reads `on_unpriced` and the `cap_price` beside it; without any, what is above counts.
fn on_unpriced(
    place: &Place,
    written: Option<file::OnUnpriced>,
    cap_price: Option<&str>,
    above: &OnUnpriced,
    book: &PriceBook,
    checker: &mut Checker<'_>,
) -> OnUnpriced {
    let Some(written) = written else {
        if cap_price.is_some() {
            checker.wrong(&place.key("cap_price"), "means nothing without on_unpriced = \"cap\"");
        }
        return above.clone();
    };
    match (written, cap_price) {
        (file::OnUnpriced::Cap, Some(row)) => {
            if let Err(unpriced) = book.named(ProviderKind::OpenAi, row, clock::unix_ms()) {
                checker.wrong(&place.key("cap_price"), unpriced);
            }
            OnUnpriced::Cap(row.into())
        }
        (file::OnUnpriced::Cap, None) => {
            checker.wrong(
                &place.key("cap_price"),
                "missing: on_unpriced = \"cap\" needs a row of the prices, such as \"gpt-4\"",
            );
            OnUnpriced::Deny
        }
        (_, Some(_)) => {
            checker.wrong(&place.key("cap_price"), "means nothing without on_unpriced = \"cap\"");
            OnUnpriced::Deny
        }
        (file::OnUnpriced::Deny, None) => OnUnpriced::Deny,
        (file::OnUnpriced::Allow, None) => OnUnpriced::Allow,
    }
}

/// Eight hex digits that stand for a text.
fn fingerprint(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().take(4).fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}
