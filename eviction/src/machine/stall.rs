//! The kernel's account of stalls, as `memory.pressure` and `/proc/pressure/memory` have it.
//!
//! Holds the reading of the text. Invariant: nonsense is no account.

use super::Stall;

/// The averages of ten seconds in `text`; nothing if the line of `some` is missing or makes no sense.
pub(super) fn parse(text: &str) -> Option<Stall> {
    let some_percent_avg10 = percent(text, "some")?;
    Some(Stall { some_percent_avg10, full_percent_avg10: percent(text, "full").unwrap_or_default() })
}

/// `some avg10=1.25 avg60=0.30 avg300=0.07 total=1234`
fn percent(text: &str, kind: &str) -> Option<f32> {
    let mut words =
        text.lines().map(str::split_whitespace).find_map(|mut line| (line.next()? == kind).then_some(line))?;
    let percent: f32 = words.find_map(|word| word.strip_prefix("avg10="))?.parse().ok()?;
    (0.0..=100.0).contains(&percent).then_some(percent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_lines_are_read() {
        let text = "some avg10=12.50 avg60=1.00 avg300=0.10 total=5\nfull avg10=3.25 avg60=0.00 avg300=0.00 total=2\n";
        assert_eq!(parse(text), Some(Stall { some_percent_avg10: 12.5, full_percent_avg10: 3.25 }));
        assert_eq!(parse("some avg10=100.00 avg60=0"), Some(Stall { some_percent_avg10: 100.0, ..Stall::default() }));
    }

    #[test]
    fn nonsense_is_no_account() {
        for text in ["", "some", "some avg10", "some avg10=", "some avg10=x", "some avg10=NaN", "some avg10=inf"] {
            assert_eq!(parse(text), None, "{text}");
        }
        for text in ["some avg10=-1.00", "some avg10=100.01", "full avg10=1.00", "sometimes avg10=1.00", "\0\n\n"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
