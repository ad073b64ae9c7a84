//! The statistics: how large a difference is beside the noise, and how often a random dealing of the rounds makes a
//! larger one.

use crate::figures::median;

/// How many dealings are tried, if there are more.
const DEALINGS_MAX: usize = 2_000;
/// The rounds of a figure never truly spread less than this, as logarithm: a set may have equal values by chance.
const SPREAD_MIN: f64 = 0.002;
/// One of so many values is left out at either end. Of few values none is, because dealings that exchange values left
/// out would be as good.
const TRIMMED_OF: usize = 8;
/// The seed, so that the dealings are the same each time.
const SEED: u64 = 0x52_69_6e_67_4d_51;

/// One figure: logarithms of its values, one for each round, the rounds of before first; `NAN`: the round has none.
pub(super) struct Row(pub Vec<f64>);

/// The result of a row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    /// Logarithm of the ratio of after to before.
    pub ratio_ln: f64,
    /// The ratio as a multiple of its standard error.
    pub statistic: f64,
    pub standard_error: f64,
    /// How often dealings make a larger difference in any row.
    pub chance: f64,
}

/// The result of each row, if the first `before` rounds are of the one set; and the statistic that only a share `error`
/// of all dealings exceeds.
pub(super) fn test(rows: &[Row], before: usize, count: usize, error: f64) -> (Vec<Found>, f64) {
    let mut first = vec![false; count];
    first[..before].fill(true);
    let usual = usual_spread(rows);
    let own: Vec<(f64, f64)> = rows.iter().map(|row| difference(&row.0, &first, usual)).collect();
    let mut largest = Vec::new();
    dealings(before, count, |dealt| {
        let of_rows = rows.iter().map(|row| {
            let (ratio, standard_error) = difference(&row.0, dealt, usual);
            (ratio / standard_error).abs()
        });
        largest.push(of_rows.fold(0.0, f64::max));
    });
    largest.sort_by(f64::total_cmp);
    let found = own.into_iter().map(|(ratio_ln, standard_error)| {
        let statistic = ratio_ln / standard_error;
        // The bound is a little less, so that values that are equal but for rounding count as equal.
        let below = largest.partition_point(|other| *other < statistic.abs() * (1.0 - 1e-9));
        let chance = (largest.len() - below) as f64 / largest.len() as f64;
        Found { ratio_ln, statistic, standard_error, chance }
    });
    let found = found.collect();
    let rank = (largest.len() as f64 * (1.0 - error)).floor() as usize;
    let critical = largest[rank.min(largest.len() - 1)];
    (found, critical)
}

/// The difference of the trimmed means, after less before, and its standard error, as in Yuen (1974) with one spread
/// for both: a round in which the machine did other work does not decide. The spread of few rounds is combined with
/// `usual`, that of all figures, so that no figure seems steady by luck (as in Tusher and others, 2001).
fn difference(values: &[f64], is_before: &[bool], usual: f64) -> (f64, f64) {
    let part = |wanted: bool| {
        let there = values.iter().zip(is_before).filter(|(value, _)| !value.is_nan());
        Part::of(there.filter(|(_, before)| **before == wanted).map(|(value, _)| *value).collect())
    };
    let (Some(before), Some(after)) = (part(true), part(false)) else {
        return (0.0, f64::INFINITY);
    };
    let freedom = before.kept + after.kept - 2.0;
    let spread = ((before.squares + after.squares) / freedom).sqrt() + usual;
    (after.mean - before.mean, spread * (1.0 / before.kept + 1.0 / after.kept).sqrt())
}

/// One set's values of a figure.
struct Part {
    mean: f64,
    kept: f64,
    /// The sum of squares about the mean, in which trimmed values count as the last value that is kept.
    squares: f64,
}

impl Part {
    /// `None`: there are too few values.
    fn of(mut values: Vec<f64>) -> Option<Part> {
        let count = values.len();
        if count < 2 {
            return None;
        }
        values.sort_by(f64::total_cmp);
        let trimmed = count / TRIMMED_OF;
        let kept = (count - 2 * trimmed) as f64;
        let mean = values[trimmed..count - trimmed].iter().sum::<f64>() / kept;
        let (least, most) = (values[trimmed], values[count - 1 - trimmed]);
        values.iter_mut().for_each(|value| *value = value.clamp(least, most));
        let middle = values.iter().sum::<f64>() / count as f64;
        let squares = values.iter().map(|value| (value - middle).powi(2)).sum();
        Some(Part { mean, kept, squares })
    }
}

/// The median over all rows of how far half of the values lie from their middle, in either set.
fn usual_spread(rows: &[Row]) -> f64 {
    let spread = |row: &Row| {
        let mut values: Vec<f64> = row.0.iter().copied().filter(|value| !value.is_nan()).collect();
        let middle = median(&values).unwrap_or(0.0);
        values.iter_mut().for_each(|value| *value = (*value - middle).abs());
        // The factor turns it into a normal deviation.
        1.4826 * median(&values).unwrap_or(0.0)
    };
    let spreads: Vec<f64> = rows.iter().map(spread).collect();
    median(&spreads).unwrap_or(0.0).max(SPREAD_MIN)
}

/// All ways to choose `before` of `count` rounds, or as many of them as are tried.
fn dealings(before: usize, count: usize, mut see: impl FnMut(&[bool])) {
    let mut dealt = vec![false; count];
    if ways(before, count) <= DEALINGS_MAX as f64 {
        let mut chosen: Vec<usize> = (0..before).collect();
        loop {
            dealt.fill(false);
            chosen.iter().for_each(|at| dealt[*at] = true);
            see(&dealt);
            // The next combination in order.
            let Some(at) = (0..before).rfind(|at| chosen[*at] < count - before + at) else {
                return;
            };
            chosen[at] += 1;
            for next in at + 1..before {
                chosen[next] = chosen[next - 1] + 1;
            }
        }
    }
    dealt[..before].fill(true);
    see(&dealt);
    let mut random = fastrand::Rng::with_seed(SEED);
    for _ in 1..DEALINGS_MAX {
        random.shuffle(&mut dealt);
        see(&dealt);
    }
}

/// How many ways there are to choose `chosen` of `count`.
pub(super) fn ways(chosen: usize, count: usize) -> f64 {
    (0..chosen).map(|at| (count - at) as f64 / (chosen - at) as f64).product()
}
