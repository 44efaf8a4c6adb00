//! Who asks, and may they.

use std::sync::Arc;

use super::refusal::Refusal;
use crate::control::keys::Keys;
use crate::domain::key::VirtualKey;

/// A request whose sender we know.
#[derive(Debug, Clone)]
pub struct Admitted {
    /// Whose it is.
    pub key: Arc<VirtualKey>,
}

/// Admits a request by the credential it carries.
pub fn admit(keys: &Keys, credential: Option<&str>) -> Result<Admitted, Refusal> {
    let presented = credential.filter(|text| !text.is_empty()).ok_or(Refusal::NoKey)?;
    let found = keys.find(presented).ok_or_else(|| Refusal::WrongKey(masked(presented)))?;
    Ok(Admitted { key: found })
}

/// A key as an error may show it: what it begins with and its last four characters.
fn masked(key: &str) -> String {
    let shown = |text: Option<&str>| text.filter(|text| text.is_ascii()).unwrap_or_default().to_owned();
    match key.len() {
        0..=16 => "***".to_owned(),
        length => format!("{}***{}", shown(key.get(..6)), shown(key.get(length - 4..))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_never_shows_a_whole_key() {
        assert_eq!(masked("sk-proj-0123456789abcdef"), "sk-pro***cdef");
        assert_eq!(masked("short"), "***");
        assert_eq!(masked("ééééééééééééé"), "******");
    }
}
