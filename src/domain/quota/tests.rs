use proptest::prelude::*;

use super::*;

fn tokens_seen(limit: u64, left: u64, reset_ms: u64) -> QuotaSeen {
    QuotaSeen {
        limit_tokens: Some(limit),
        remaining_tokens: Some(left),
        reset_tokens_ms: Some(reset_ms),
        ..QuotaSeen::default()
    }
}

#[test]
fn nothing_known_is_no_limit() {
    let mut quota = Quota::default();
    assert_eq!(quota.fits(u64::MAX, 0), Ok(()));
    quota.take(u64::MAX, 0);
    assert_eq!(
        (quota.fits(1, 0), quota.left_share_permille(0), quota.tokens_per_minute()),
        (Ok(()), None, None)
    );
    // nothing that could be believed
    for seen in [
        QuotaSeen { limit_tokens: Some(0), remaining_tokens: Some(0), ..QuotaSeen::default() },
        QuotaSeen { limit_tokens: Some(u64::MAX), remaining_tokens: Some(0), ..QuotaSeen::default() },
        QuotaSeen { remaining_tokens: Some(0), ..QuotaSeen::default() },
        QuotaSeen { limit_tokens: Some(9), ..QuotaSeen::default() },
    ] {
        quota.seen(&seen, Mark::default(), 0);
        assert_eq!(quota.left_share_permille(0), None, "{seen:?}");
    }
}

#[test]
fn the_operators_figures_fill_again_in_a_minute() {
    let mut quota = Quota::default();
    let limits = |tokens, requests| RateLimits {
        tokens_per_minute: Some(tokens),
        requests_per_minute: Some(requests),
        ..RateLimits::default()
    };
    quota.set(&limits(6_000, 60), 0);
    assert_eq!(quota.tokens_per_minute(), Some(6_000));
    quota.take(4_500, 0);
    assert_eq!(quota.left_share_permille(0), Some(250));
    assert_eq!(quota.fits(1_500, 0), Ok(()));
    assert_eq!(quota.fits(2_500, 0), Err(10_000), "100 a second");
    assert_eq!(quota.fits(2_500, 10_000), Ok(()));
    assert_eq!(quota.left_share_permille(60_000), Some(1_000));
    // one larger than the whole waits until it is full, not for ever
    assert_eq!(quota.fits(99_000, 0), Err(45_000));
    assert_eq!(quota.fits(99_000, 45_000), Ok(()));
    // the same again changes nothing, another figure begins anew
    quota.set(&limits(6_000, 60), 0);
    assert_eq!(quota.left_share_permille(0), Some(250));
    quota.set(&limits(12_000, 60), 0);
    assert_eq!(quota.left_share_permille(0), Some(983), "the requests are scarcer");
    for _ in 0..59 {
        quota.take(0, 0);
    }
    assert_eq!(quota.fits(0, 0), Err(1_000));
}

#[test]
fn headers_are_believed_and_our_own_use_since_is_taken_off() {
    let mut quota = Quota::default();
    let first = quota.take(1_000, 0);
    let second = quota.take(2_000, 0);
    // the first answer has not heard of the second request
    quota.seen(&tokens_seen(10_000, 9_000, 6_000), first, 1_000);
    assert_eq!(quota.left_share_permille(1_000), Some(700));
    quota.seen(&tokens_seen(10_000, 6_500, 21_000), second, 1_000);
    assert_eq!(quota.left_share_permille(1_000), Some(650), "somebody else uses it, too");
    assert_eq!(quota.fits(7_500, 1_000), Err(6_000));
    assert_eq!(quota.left_share_permille(22_000), Some(1_000), "full when its reset has passed");
    // the scarcer of what the operator and the answers say
    quota.set(&RateLimits { tokens_per_minute: Some(5_000), ..RateLimits::default() }, 22_000);
    quota.take(2_500, 22_000);
    assert_eq!((quota.left_share_permille(22_000), quota.tokens_per_minute()), (Some(500), Some(5_000)));
    quota.seen(&tokens_seen(10_000, 0, 60_000), quota_mark(&quota), 22_000);
    assert_eq!(quota.left_share_permille(22_000), Some(0));
}

fn quota_mark(quota: &Quota) -> Mark {
    Mark { requests: quota.requests.taken, tokens: quota.tokens.taken }
}

#[test]
fn the_reset_shows_how_fast_it_fills() {
    for (limit, left, reset_ms, wait_ms) in [
        // OpenAI: a minute's bucket
        (160_000, 0, 60_000, 60_000),
        (160_000, 80_000, 30_000, 30_000),
        // a day's requests, nearly used up
        (10_000, 0, 86_400_000, 86_400_000),
        // a window of ten seconds
        (1_000, 0, 10_000, 10_000),
        // nearly full, but the window is far from over: no more than a minute is concluded
        (1_000, 999, 50_000, 60),
        // nothing said of it
        (1_000, 0, 0, 60_000),
        (1_000, 0, u64::MAX, LONGEST_MS),
    ] {
        let mut quota = Quota::default();
        quota.seen(&tokens_seen(limit, left, reset_ms), Mark::default(), 0);
        assert_eq!(quota.fits(limit, 0), Err(wait_ms), "{limit} {left} {reset_ms}");
        assert_eq!(quota.fits(limit, i64::try_from(wait_ms).expect("small")), Ok(()));
    }
}

proptest! {
    /// Whatever is said and taken: shares are shares, and every wait ends.
    #[test]
    fn no_wait_is_for_ever(
        acts in proptest::collection::vec((0..3_u8, any::<u64>(), any::<u64>(), any::<u64>(), 0..100_000_i64), 1..60),
        tokens in any::<u64>(),
    ) {
        let mut quota = Quota::default();
        let (mut mark, mut now_ms) = (Mark::default(), 0);
        for (act, one, other, third, gap_ms) in acts {
            now_ms += gap_ms;
            match act {
                0 => mark = quota.take(one, now_ms),
                1 => quota.seen(&tokens_seen(one >> 16, other >> 16, third), mark, now_ms),
                _ => quota.set(&RateLimits { tokens_per_minute: Some(one), ..RateLimits::default() }, now_ms),
            }
            prop_assert!(quota.left_share_permille(now_ms).is_none_or(|share| share <= 1_000));
            if let Err(wait_ms) = quota.fits(tokens, now_ms) {
                prop_assert!(wait_ms <= 2 * LONGEST_MS + 1);
                // a rounding may take one more
                let after = now_ms + i64::try_from(wait_ms).expect("small") + 1;
                prop_assert_eq!(quota.fits(tokens, after), Ok(()));
            }
        }
    }
}
