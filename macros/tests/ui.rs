//! What `#[memoize]` refuses, and where it says so: on the user's own span.

#[test]
fn errors_stand_where_the_user_wrote_them() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/ui/*.rs");
}
