
/// By steps, not by the clock: a search for an end that is not there must not start again at each character. Quadratic,
/// these would take minutes.
#[test]
fn patterns_without_an_end_are_judged_in_one_pass() {
    let braces = "{".repeat(100_000);
    assert!(translate(&braces).is_ok());
    assert!(translate(&format!("a{braces}}}")).is_ok());
    assert!(translate(&format!("[{}]", "[:a".repeat(40_000))).is_ok());
    assert!(translate(&"{1".repeat(60_000)).is_ok());
}
