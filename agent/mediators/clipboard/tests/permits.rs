//! What does not compile: content that is sent to a guest, or offered to it, without a permit.

#[test]
fn no_content_of_another_domain_is_sent_or_offered_to_a_guest_without_a_permit() {
    trybuild::TestCases::new().compile_fail("tests/forged/*.rs");
}
