//! What does not compile: a permit that the monitor did not make, or that is used twice.

#[test]
fn a_permit_can_neither_be_forged_nor_changed_nor_copied_nor_used_twice() {
    trybuild::TestCases::new().compile_fail("tests/forged/*.rs");
}
