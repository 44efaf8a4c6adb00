//! Ids as OpenAI's look: a prefix, and 24 letters and digits.

const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// Digits of an id: of 128 random bits, about all.
const LENGTH: usize = 22;

/// What an id is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Id {
    /// A file.
    File,
    /// An upload in parts.
    Upload,
    /// A part of one.
    Part,
    /// A fine-tuning job.
    Job,
    /// An event of a job.
    Event,
    /// A checkpoint of a job.
    Checkpoint,
    /// An evaluation.
    Evaluation,
}

impl Id {
    /// What stands in front.
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::File => "file-",
            Self::Upload => "upload_",
            Self::Part => "part_",
            Self::Job => "ftjob-",
            Self::Event => "ftevent-",
            Self::Checkpoint => "ftckpt_",
            Self::Evaluation => "eval_",
        }
    }

    /// A new one, from 128 random bits.
    pub fn mint(self, random: u128) -> String {
        let mut id = self.prefix().to_owned();
        let mut rest = random;
        for _ in 0..LENGTH {
            // the remainder is below 62
            let digit = usize::try_from(rest % 62).unwrap_or_default();
            id.push(char::from(DIGITS[digit]));
            rest /= 62;
        }
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_says_what_it_is_of_and_holds_its_bits() {
        assert_eq!(Id::File.mint(0), "file-0000000000000000000000");
        assert_eq!(Id::Job.mint(61), "ftjob-z000000000000000000000");
        assert_ne!(Id::Part.mint(u128::MAX), Id::Part.mint(u128::MAX - 1));
        assert!(Id::Checkpoint.mint(u128::MAX).starts_with("ftckpt_"));
    }
}
