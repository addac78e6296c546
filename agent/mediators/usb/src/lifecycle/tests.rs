//! Single steps. All steps in all orders are in `world`.

use super::*;

#[test]
fn a_device_that_is_another_after_each_reset_is_told_from_one_that_is_pulled_out_in_a_reset() {
    let mut times = 0;
    for (was, comes, expected) in [(1, 2, 1), (2, 1, 2), (1, 1, 0), (1, 2, 1), (2, 3, 2), (3, 2, 3)]
    {
        let when = Moment::since_start(Duration::ZERO);
        let mut lost = ResetLoss { times, when, was: Some(vec![was]) };
        times = lost.on_replacement(&[comes]);
        assert_eq!(times, expected);
        assert_eq!(lost.on_replacement(&[9]), expected, "what is plugged in later was not lost");
    }
    assert!(times >= CHANGES_MAX);
}
