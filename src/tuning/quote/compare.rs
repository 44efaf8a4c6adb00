//! What is cheaper, and up to which traffic; in words.

use super::ways::Lined;
use super::{Drawn, Meeting, Standing, TargetQuote, Traffic, Way};
use crate::domain::economics::{BreakEven, break_even};

/// The first whose month is known, and where one can train, beside each of the others.
pub(super) fn beside_the_first(drawn: &[Drawn]) -> Vec<Meeting> {
    let mut known = drawn
        .iter()
        .filter(|drawn| drawn.quote.standing != Standing::Closed)
        .filter_map(|drawn| Some((&drawn.quote.target, drawn.tuned.as_ref()?)));
    let Some((first, line)) = known.next() else { return Vec::new() };
    known.map(|(second, other)| meeting(first, line, second, other)).collect()
}

pub(super) fn meeting(first: &str, one: &Lined, second: &str, other: &Lined) -> Meeting {
    let found = break_even(&one.server(), &other.server(), &one.measure);
    let requests = |tokens: u64| {
        let mean = one.measure.total() / one.measure.requests.max(1);
        tokens.checked_div(mean)
    };
    let (tokens, words) = match found {
        BreakEven::FirstUpTo(tokens) => (
            Some(tokens),
            format!("{first} is cheaper up to {} tokens a month, then {second}", grouped(tokens)),
        ),
        BreakEven::SecondUpTo(tokens) => (
            Some(tokens),
            format!("{second} is cheaper up to {} tokens a month, then {first}", grouped(tokens)),
        ),
        BreakEven::First => (None, format!("{first} is cheaper than {second} at any traffic")),
        BreakEven::Second => (None, format!("{second} is cheaper than {first} at any traffic")),
        BreakEven::Same => (None, format!("{first} and {second} cost the same")),
    };
    Meeting {
        first: first.to_owned(),
        second: second.to_owned(),
        tokens_a_month: tokens,
        requests_a_month: tokens.and_then(requests),
        words,
    }
}

/// Prompt, retrieval or fine-tune.
pub(super) fn answer(targets: &[TargetQuote], traffic: &Traffic) -> String {
    let open = || targets.iter().filter(|target| target.standing != Standing::Closed);
    let Some(best) = open().find(|target| target.training.known().is_some()) else {
        return "nobody here can train this data set at a known price: see each target".to_owned();
    };
    let trained = best.training.known().map(|training| training.tuition.cost).unwrap_or_default();
    let meetings: Vec<&str> = best.break_even.iter().map(|meeting| meeting.words.as_str()).collect();
    let meetings = meetings.join("; ");
    let Some((cheapest, bill)) = best.cheapest.zip(best.bill(Way::FineTune)) else {
        let why = if traffic.load.is_none() { traffic.note.as_str() } else { "not all figures are known" };
        return format!("{}: training costs {trained} USD; {meetings} ({why})", best.target);
    };
    let of =
        |way: Way| best.bill(way).map_or_else(|| "unknown".to_owned(), |bill| bill.total_usd.to_string());
    format!(
        "{} at {} is the cheapest way for this traffic: a month costs {} USD with a longer prompt, {} USD with retrieval, {} \
         USD fine-tuned (of it {} USD hosting and {} USD of {trained} USD of training); {meetings}. What each is worth in \
         quality no price says: measure it",
        cheapest.words(),
        best.target,
        of(Way::Prompt),
        of(Way::Retrieval),
        of(Way::FineTune),
        bill.month.hosting,
        bill.month.training_share,
    )
}

/// A number with commas between thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
