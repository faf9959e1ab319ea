//! Times counted in buckets about 1.6 % wide: constant memory, any number of packets. Keeps no single value.

/// Buckets per doubling: 64, so a bucket is at most 1/64 wide.
const FINE: u32 = 6;
const BUCKETS: usize = (64 - FINE as usize + 1) << FINE;

/// Counts of nanosecond values.
#[derive(Clone, Debug)]
pub struct Histogram {
    buckets: Vec<u64>,
    n: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: vec![0; BUCKETS], n: 0 }
    }
}

impl Histogram {
    /// Counts one value.
    pub fn add(&mut self, ns: u64) {
        self.buckets[bucket(ns)] += 1;
        self.n += 1;
    }

    /// Adds what another one counted.
    pub fn merge(&mut self, other: &Self) {
        self.n += other.n;
        self.buckets.iter_mut().zip(&other.buckets).for_each(|(mine, theirs)| *mine += theirs);
    }

    /// How many were counted.
    pub fn n(&self) -> u64 {
        self.n
    }

    /// The middle of the bucket that holds this quantile; 0 without values.
    pub fn quantile(&self, q: f64) -> u64 {
        let rank = ((q * self.n as f64).ceil() as u64).clamp(1, self.n.max(1));
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += count;
            if *count > 0 && seen >= rank {
                return u64::midpoint(lower(index), lower(index + 1));
            }
        }
        0
    }
}

/// Values below 64 have a bucket each; above, the top six bits behind the leading one choose it.
fn bucket(value: u64) -> usize {
    let top = (value | 1).ilog2();
    if top < FINE {
        return value as usize;
    }
    let shift = top - FINE;
    (((shift + 1) as usize) << FINE) + ((value >> shift) as usize & ((1 << FINE) - 1))
}

fn lower(bucket: usize) -> u64 {
    let (row, column) = (bucket >> FINE, (bucket & ((1 << FINE) - 1)) as u64);
    if row == 0 { column } else { ((1 << FINE) + column).checked_shl(row as u32 - 1).unwrap_or(u64::MAX) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_its_bucket() {
        for value in (0..200).chain((6..63).flat_map(|b| [(1 << b) - 1, 1 << b, (1 << b) + 12345 % (1 << b)])) {
            let b = bucket(value);
            assert!(lower(b) <= value && value < lower(b + 1), "{value} in bucket {b}");
        }
        assert!(bucket(u64::MAX) < BUCKETS);
    }

    #[test]
    fn quantiles_are_within_a_bucket() {
        let mut h = Histogram::default();
        (1..=1000).for_each(|i| h.add(i * 1_000_000));
        for (q, truth) in [(0.5, 500e6), (0.99, 990e6)] {
            let got = h.quantile(q) as f64;
            assert!((got / truth - 1.0).abs() < 0.016, "{q}: {got}");
        }
        assert_eq!((h.n(), Histogram::default().quantile(0.5)), (1000, 0));
    }
}
