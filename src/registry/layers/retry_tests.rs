//! Tests of `retry.rs`.

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn policy() -> RetryPolicy {
    RetryPolicy { base: SECOND, max: 8 * SECOND, attempts: 5 }
}

#[test]
fn pauses_double_up_to_the_longest() {
    let p = RetryPolicy { attempts: 100, ..policy() };
    let pauses: Vec<_> =
        (1..7).map(|n| p.delay(n, 1.0, None, 60 * SECOND).unwrap().as_secs_f64()).collect();
    assert_eq!(pauses, [1.0, 2.0, 4.0, 8.0, 8.0, 8.0]);
    assert_eq!(p.delay(2, 0.0, None, 60 * SECOND), Some(SECOND), "half, with no luck");
    assert_eq!(p.delay(99, 1.0, None, 60 * SECOND), Some(8 * SECOND), "no overflow");
}

#[test]
fn retries_end_at_the_deadline() {
    let p = policy();
    assert!(p.delay(4, 0.5, None, 60 * SECOND).is_some());
    assert_eq!(p.delay(5, 0.5, None, 60 * SECOND), None, "five have failed");
    assert_eq!(p.delay(1, 1.0, None, SECOND), None, "nothing would be left");
    assert_eq!(p.delay(1, 0.5, None, SECOND), Some(Duration::from_millis(750)));
}

#[test]
fn retry_after_of_a_server_is_honoured() {
    let p = policy();
    assert_eq!(p.delay(1, 0.5, Some(30 * SECOND), 60 * SECOND), Some(30 * SECOND));
    assert_eq!(p.delay(3, 1.0, Some(SECOND), 60 * SECOND), Some(4 * SECOND), "more is fine");
    assert_eq!(p.delay(1, 0.5, Some(61 * SECOND), 60 * SECOND), None, "too long for us");
}

fn later() -> Retry {
    Retry::Later { not_before: None }
}

#[tokio::test(start_paused = true)]
async fn attempts_end_with_the_deadline_and_begin_anew_with_progress() {
    let mut attempts = Attempts::new(policy(), 3 * SECOND);
    assert!(attempts.failed(later(), &"refused").is_some());
    tokio::time::advance(3 * SECOND).await;
    assert_eq!(attempts.failed(later(), &"refused"), None, "the time is up");
    assert_eq!(attempts.failed(Retry::Once, &"garbled"), None);
    attempts.progressed();
    assert!(attempts.failed(later(), &"refused").is_some());
    assert_eq!(attempts.failed(Retry::Never, &"missing"), None);
}

#[tokio::test(start_paused = true)]
async fn a_possibly_corrupted_document_is_requested_once_more_at_once() {
    let mut attempts = Attempts::new(policy(), 60 * SECOND);
    assert_eq!(attempts.failed(Retry::Once, &"garbled"), Some(Duration::ZERO));
    assert_eq!(attempts.failed(Retry::Once, &"garbled"), None);
    attempts.progressed();
    assert_eq!(attempts.failed(Retry::Once, &"garbled"), Some(Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn pauses_are_spread_over_their_upper_half_and_listed() {
    let waits = Arc::new(Waits::default());
    let pauses: Vec<_> = (0..20)
        .map(|_| {
            let mut attempts = Attempts::new(policy(), 60 * SECOND);
            attempts.list_in(&waits);
            let pause = attempts.failed(later(), &"refused").unwrap();
            assert_eq!(waits.longest().unwrap().why, "refused");
            pause
        })
        .collect();
    assert!(pauses.iter().all(|p| (SECOND / 2..=SECOND).contains(p)), "{pauses:?}");
    assert!(pauses.windows(2).any(|w| w[0] != w[1]), "{pauses:?}");
    assert_eq!(waits.longest(), None);
}

proptest! {
    #[test]
    fn pauses_are_within_bounds(
        failed in 1u32..200, random in 0.0f64..1.0, base in 1u64..5000, max in 1u64..60_000,
        after in proptest::option::of(0u64..100_000), left in 0u64..100_000, attempts in 1u32..200,
    ) {
        let ms = Duration::from_millis;
        let p = RetryPolicy { base: ms(base), max: ms(max), attempts };
        let after = after.map(ms);
        if let Some(pause) = p.delay(failed, random, after, ms(left)) {
            prop_assert!(pause < ms(left) && failed < attempts);
            prop_assert!(pause >= after.unwrap_or_default());
            prop_assert!(pause <= ms(max).max(after.unwrap_or_default()));
            prop_assert!(pause >= ms(base.min(max)) / 2);
        }
    }
}
