//! Durations as people write them: `15m`, `1h 30m`, `250ms`. Checked while compiling.

use std::time::Duration;

const UNITS: [(&[&str], u64); 8] = [
    (&["ns", "nsec", "nanosecond", "nanoseconds"], 1),
    (&["us", "usec", "microsecond", "microseconds"], 1_000),
    (&["ms", "msec", "millisecond", "milliseconds"], 1_000_000),
    (&["s", "sec", "secs", "second", "seconds"], 1_000_000_000),
    (&["m", "min", "mins", "minute", "minutes"], 60_000_000_000),
    (&["h", "hr", "hour", "hours"], 3_600_000_000_000),
    (&["d", "day", "days"], 86_400_000_000_000),
    (&["w", "week", "weeks"], 604_800_000_000_000),
];

/// The duration that `text` tells, or what is wrong with it.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err("an empty duration; write it as `15m`, `1h 30m` or `250ms`".to_owned());
    }
    let mut nanos = 0_u128;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let after = after.trim_start();
        let letters = after.find(|c: char| !c.is_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let number: u64 =
            number.parse().map_err(|_| format!("`{text}` is no duration; a number is missing or too large"))?;
        let found = UNITS.iter().find(|(names, _)| names.contains(&unit));
        let (_, unit_nanos) =
            found.ok_or_else(|| format!("`{unit}` is no unit of time; take ns, us, ms, s, m, h, d or w"))?;
        nanos += u128::from(number) * u128::from(*unit_nanos);
        rest = after.trim_start();
    }
    let seconds = u64::try_from(nanos / 1_000_000_000).map_err(|_| format!("`{text}` is too long"))?;
    Ok(Duration::new(seconds, (nanos % 1_000_000_000) as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        let seconds = |text| parse(text).map(|duration| duration.as_secs_f64());
        assert_eq!(seconds("15m"), Ok(900.0));
        assert_eq!(seconds("1h 30m"), Ok(5400.0));
        assert_eq!(seconds("1h30m"), Ok(5400.0));
        assert_eq!(seconds(" 250 ms "), Ok(0.25));
        assert_eq!(seconds("0s"), Ok(0.0));
        assert_eq!(seconds("2 days"), Ok(172_800.0));
        for bad in ["", "15", "m", "1.5h", "-1s", "15 parsecs", "99999999999999999999s"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
