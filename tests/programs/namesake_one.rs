//! One of two programs whose functions have one name: see `tests/config.rs`.

#[thermocline::memoize]
fn load(number: u32) -> String {
    println!("computed");
    format!("one {number}")
}

fn main() {
    println!("{}", load(1));
}
