use thermocline::memoize;

trait Area {
    fn area(&self, times: u32) -> u32;
}

#[derive(serde::Serialize)]
struct Shape(u32);

/// A method of a trait's implementation has no place for companions.
impl Area for Shape {
    #[memoize]
    fn area(&self, times: u32) -> u32 {
        self.0 * times
    }
}

fn main() {}
