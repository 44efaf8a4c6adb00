//! What becomes of an upstream's answer when the client has left.

use std::time::Duration;

use super::catalog::{Deployment, OnClientGone};

/// What to do with the upstream now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaving {
    /// Stop it: what was streamed is known, and nothing is made unseen.
    Abort,
    /// Read on to the usage, for at most so long.
    ReadOn(Duration),
}

/// Decides for one answer; `unseen` says that the model may be making tokens of which none has been seen yet.
///
/// A whole answer is always read to its end: it is paid for whether we read it or not, and only its end says how much.
/// A stream is stopped, unless the operator wants the exact figure, or the model may be making tokens that nobody has
/// seen yet: then only its usage tells what they cost.
pub fn leaving(deployment: &Deployment, stream: bool, unseen: bool) -> Leaving {
    if !stream {
        return Leaving::ReadOn(deployment.timeouts.total);
    }
    match deployment.on_client_gone {
        OnClientGone::Drain => Leaving::ReadOn(deployment.drain),
        OnClientGone::Abort if unseen => Leaving::ReadOn(deployment.drain),
        OnClientGone::Abort => Leaving::Abort,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::catalog::tests::deployment;

    #[test]
    fn only_a_stream_without_unseen_tokens_is_stopped() {
        use Leaving::{Abort, ReadOn};
        let mut one = (*deployment("d", "m")).clone();
        let (drain, total) = (one.drain, one.timeouts.total);
        for (policy, stream, unseen, want) in [
            (OnClientGone::Abort, true, false, Abort),
            (OnClientGone::Abort, true, true, ReadOn(drain)),
            (OnClientGone::Drain, true, false, ReadOn(drain)),
            (OnClientGone::Drain, true, true, ReadOn(drain)),
            (OnClientGone::Abort, false, false, ReadOn(total)),
            (OnClientGone::Drain, false, true, ReadOn(total)),
        ] {
            one.on_client_gone = policy;
            assert_eq!(leaving(&one, stream, unseen), want, "{policy:?} {stream} {unseen}");
        }
    }
}
