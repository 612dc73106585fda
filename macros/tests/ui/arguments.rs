use thermocline::memoize;

struct Connection;

/// An argument that cannot be encoded is named.
#[memoize]
fn load(number: u32, connection: &Connection) -> u32 {
    let _ = connection;
    number
}

/// Idea 7: a receiver that cannot be encoded is refused, or ignored by name.
impl Connection {
    #[memoize]
    fn query(&self, number: u32) -> u32 {
        number
    }

    #[memoize(ignore(self))]
    fn ignored(&self, number: u32) -> u32 {
        number
    }
}

#[memoize]
fn changed(list: &mut Vec<u32>) -> usize {
    list.push(1);
    list.len()
}

#[memoize]
fn nameless(number: impl Into<u64> + serde::Serialize) -> u64 {
    number.into()
}

#[memoize]
fn conditional(number: u32, #[cfg(unix)] other: u32) -> u32 {
    number + other
}

#[memoize(ignore(log))]
fn ignored_and_nameless(number: u32, log: &mut impl std::io::Write) -> u32 {
    let _ = log;
    number
}

fn main() {}
