use thermocline::memoize;

#[memoize]
fn opaque(number: u32) -> impl std::fmt::Display {
    number
}

#[memoize(cache_none)]
fn no_option(number: u32) -> u32 {
    number
}

#[memoize(cache_err)]
fn no_result(number: u32) -> Option<u32> {
    Some(number)
}

fn main() {}
