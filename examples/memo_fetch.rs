//! A fetch over the network, or what stands for one here: slow, failing now and then, and good for a while.
//!
//! Past `stale_after` everybody gets the old page at once, while one refresh runs behind. Errors are not kept.

use std::{io, thread, time::Duration};

use serde::{Deserialize, Serialize};
use thermocline::{CallOptions, Store, memoize};

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Page {
    status: u16,
    body: String,
}

#[memoize(ttl = "1h", stale_after = "200ms", max_entries = 10_000, tags = ["pages"])]
fn fetch(url: &str) -> io::Result<Page> {
    println!("  … fetching {url}");
    thread::sleep(Duration::from_millis(50));
    match url.strip_prefix("http://") {
        Some(host) => Ok(Page { status: 200, body: format!("hello from {host}") }),
        None => Err(io::Error::other("no such scheme")),
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Without this line pages would be kept across restarts, in the user's cache directory.
    thermocline::set_default(Store::builder().in_memory()?);

    println!("{:?}", fetch("http://example.org")?);
    println!("again, from memory: {}", fetch("http://example.org")?.body);
    println!("an error is not kept: {}", fetch("gopher://example.org").unwrap_err());

    thread::sleep(Duration::from_millis(250));
    println!("stale, and served at once: {}", fetch("http://example.org")?.body);
    thread::sleep(Duration::from_millis(100));

    let young = CallOptions::new().max_age(Duration::from_millis(1));
    println!("no older than a millisecond: {}", fetch::with(young).call("http://example.org")?.body);
    for call in fetch::query().iter() {
        println!("{:?} took {:?}, status {}", call.arguments, call.duration, call.result?.status);
    }
    println!("{:?}", fetch::info());
    Ok(())
}
