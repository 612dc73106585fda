//! A recursive function, an async one, and a method.

use serde::Serialize;
use thermocline::{Store, memoize};

/// Calls itself through the cache: each number is computed once.
#[memoize]
fn fibonacci(number: u64) -> u64 {
    if number < 2 { number } else { fibonacci(number - 1) + fibonacci(number - 2) }
}

/// Tied to no runtime; many who await the same price await one computation.
#[memoize(ttl = "15m")]
async fn price(painting: &str, year: u32) -> Option<u64> {
    std::future::ready(()).await;
    (year > 1900).then_some(painting.len() as u64 * 1_000_000)
}

#[derive(Serialize)]
struct Shape {
    width: f64,
    height: f64,
}

impl Shape {
    /// The receiver is part of the key, as every argument is.
    #[memoize]
    fn area(&self, scale: f64) -> f64 {
        self.width * self.height * scale
    }
}

fn main() -> thermocline::Result<()> {
    thermocline::set_default(Store::builder().in_memory()?);

    println!("fibonacci(90) = {}", fibonacci(90));
    println!("calls kept: {}, the key of one: {}", fibonacci::info().entries, fibonacci::key(90));

    println!("price: {:?}", pollster::block_on(price("Nighthawks", 1942)));
    println!("kept: {}", price::contains("Nighthawks", 1942));

    let shape = Shape { width: 2.0, height: 3.0 };
    println!("area: {}", shape.area(1.5));
    println!("kept: {:?}", Shape::area_memo().get(&shape, 1.5));
    Ok(())
}
