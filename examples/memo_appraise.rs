//! A function whose results are kept: run it twice, and the second time it computes nothing.

use thermocline::memoize;

#[memoize(ttl = "15m", max_entries = 10_000)]
fn appraise(painting: &str, year: u32) -> u64 {
    println!("  … appraising {painting}");
    painting.len() as u64 * u64::from(year)
}

fn main() {
    println!("Nighthawks: {}", appraise("Nighthawks", 1942));
    println!("Nighthawks: {}", appraise("Nighthawks", 1942));
    println!("Automat: {}", appraise("Automat", 1927));
    let info = appraise::info();
    println!("{} hits, {} misses, {} kept", info.hits, info.misses, info.entries);
    for call in appraise::query().year(1942).iter() {
        println!("{:?} is {}", call.arguments, call.result);
    }
}
