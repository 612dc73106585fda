//! Skewed draws: the record of rank r comes with a probability that goes with 1 / r^exponent.
//!
//! Exact and slow: draws are made before the time runs.

use thermocline_peers::workload::splitmix64;

const STRIDE: u64 = 2_654_435_761; // a prime above every count: neighbours in rank are far apart in order of insertion

pub struct Zipf {
    /// Of each rank, the share of it and of all ranks before it.
    cumulative: Vec<f64>,
}

impl Zipf {
    pub fn new(count: u64, exponent: f64) -> Self {
        let mut total = 0.0;
        let sums = (1..=count).map(|rank| {
            total += (rank as f64).powf(-exponent);
            total
        });
        let mut cumulative: Vec<f64> = sums.collect();
        cumulative.iter_mut().for_each(|sum| *sum /= total);
        Self { cumulative }
    }

    /// So many independent draws of an index; the order follows from `seed`.
    pub fn draw(&self, draws: u64, seed: u64) -> Vec<u32> {
        let first = splitmix64(seed);
        (0..draws).map(|draw| self.index(splitmix64(first.wrapping_add(draw)))).collect()
    }

    fn index(&self, random: u64) -> u32 {
        let share = (random >> 11) as f64 / (1_u64 << 53) as f64;
        let rank = self.cumulative.partition_point(|sum| *sum <= share) as u64;
        (rank * STRIDE % self.cumulative.len() as u64) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::Zipf;

    #[test]
    fn the_first_rank_comes_as_often_as_it_should() {
        let draws = Zipf::new(1000, 0.99).draw(100_000, 1);
        let first = draws.iter().filter(|index| **index == 0).count() as f64 / draws.len() as f64;
        let harmonic: f64 = (1..=1000).map(|rank| f64::from(rank).powf(-0.99)).sum();
        assert!((first * harmonic - 1.0).abs() < 0.05, "{first} instead of {}", 1.0 / harmonic);
        assert!(draws.iter().all(|index| *index < 1000));
    }
}
