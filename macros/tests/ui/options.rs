use thermocline::memoize;

#[memoize(ttl = "15 parsecs")]
fn unit(number: u32) -> u32 {
    number
}

#[memoize(ttl = "0s")]
fn zero(number: u32) -> u32 {
    number
}

#[memoize(ttl = "1m", stale_after = "2m")]
fn stale(number: u32) -> u32 {
    number
}

#[memoize(ttl = "1m", ttl = "2m")]
fn twice(number: u32) -> u32 {
    number
}

#[memoize(tll = "1m")]
fn misspelt(number: u32) -> u32 {
    number
}

#[memoize(max_entries = 0)]
fn nothing(number: u32) -> u32 {
    number
}

#[memoize(ignore(nmber))]
fn unknown(number: u32) -> u32 {
    number
}

#[memoize(tags = "users")]
fn tagged(number: u32) -> u32 {
    number
}

#[memoize(key = number, ignore(number))]
fn keyed(number: u32) -> u32 {
    number
}

#[memoize(cache_none = true)]
fn flag(number: u32) -> Option<u32> {
    Some(number)
}

#[memoize(require = number)]
fn required(number: u32) -> u32 {
    number
}

#[memoize(wait_timeout = "0s")]
fn impatient(number: u32) -> u32 {
    number
}

fn main() {}
