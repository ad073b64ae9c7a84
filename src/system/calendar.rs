//! Dates of the calendar from seconds since 1970, UTC.

/// Seconds since 1970 as a date, `between`, the time and `zone`: `2001-02-03T04:05:06Z`.
pub fn text(seconds: u64, between: char, zone: &str) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Years begin in March here, so that the leap day comes last: H. Hinnant, "chrono-compatible date algorithms".
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}{between}{hour:02}:{minute:02}:{second:02}{zone}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_a_date() {
        for (seconds, date) in [
            (0, "1970-01-01 00:00:00+0000"),
            (951_782_399, "2000-02-28 23:59:59+0000"),
            (951_782_400, "2000-02-29 00:00:00+0000"),
            (1_709_251_200, "2024-03-01 00:00:00+0000"),
            (4_107_542_399, "2100-02-28 23:59:59+0000"),
            (4_107_542_400, "2100-03-01 00:00:00+0000"),
        ] {
            assert_eq!(text(seconds, ' ', "+0000"), date);
        }
        assert_eq!(text(1_709_251_199, 'T', "Z"), "2024-02-29T23:59:59Z");
    }
}
