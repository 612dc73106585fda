use thermocline::memoize;

#[memoize]
const fn constant(number: u32) -> u32 {
    number
}

#[memoize]
unsafe fn unchecked(number: u32) -> u32 {
    number
}

#[memoize]
extern "C" fn foreign(number: u32) -> u32 {
    number
}

#[memoize]
struct NoFunction;

fn main() {
    // It is there, whatever was wrong with it.
    let _ = NoFunction;
}
