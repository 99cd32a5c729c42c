//! A hash index from keys to slots: open addressing in buckets of one cache line, eight bytes for an entry.
//!
//! An entry is a hash and the number of a slot, so that a lookup touches one cache line of the index and then
//! the slot itself, and growing or removing touches no slot at all. The hash alone determines that cache
//! line, which lets the lookups of a batch wait for memory together: see [`Index::touch`]. A full bucket
//! overflows into the next one, which at this load happens to one entry in thirty.
//!
//! Linear probing by buckets, and deletion that moves overflowed entries back: D. E. Knuth, "The Art of
//! Computer Programming", volume 3, 6.4, "External searching", and algorithm R.

use crate::base::huge_pages::prefer_huge_pages;

/// The number of entries in a bucket.
const PLACES: usize = 8;
const FEWEST_BUCKETS: usize = 8;
/// The number of buckets, 2 MiB, from which on they are kept in huge pages.
const MANY_BUCKETS: usize = 1 << 15;

/// The maximum number of entries: three quarters of the places.
const fn most_in(buckets: usize) -> usize {
    buckets * PLACES / 4 * 3
}

/// One cache line: hashes, and the slots' numbers in the same order. A place with the number of no slot is
/// vacant.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Bucket {
    hashes: [u32; PLACES],
    numbers: [u32; PLACES],
}

/// The number of no slot.
pub(in crate::domain::tracker) const NONE: u32 = u32::MAX;

impl Bucket {
    const VACANT: Bucket = Bucket { hashes: [u32::MAX; PLACES], numbers: [NONE; PLACES] };

    /// The places with this hash, a bit for each; some may be vacant. All are compared without a branch,
    /// because the place of a hash cannot be predicted.
    #[inline]
    fn places_with(&self, hash: u32) -> u32 {
        let bits = self.hashes.iter().enumerate().map(|(place, other)| u32::from(*other == hash) << place);
        bits.fold(0, |all, bit| all | bit)
    }

    fn place_of(&self, number: u32) -> Option<usize> {
        self.numbers.iter().position(|other| *other == number)
    }

    fn is_full(&self) -> bool {
        self.place_of(NONE).is_none()
    }

    const fn set(&mut self, place: usize, hash: u32, number: u32) {
        self.hashes[place] = hash;
        self.numbers[place] = number;
    }

    fn entries(&self) -> impl Iterator<Item = (u32, u32)> {
        let all = self.hashes.into_iter().zip(self.numbers);
        all.filter(|(_, number)| *number != NONE)
    }
}

/// Slot numbers by hash. Several may have the same hash.
#[derive(Debug)]
pub(super) struct Index {
    buckets: Box<[Bucket]>,
    len: usize,
}

impl Default for Index {
    fn default() -> Self {
        Self::with_buckets(FEWEST_BUCKETS)
    }
}

impl Index {
    fn with_buckets(count: usize) -> Self {
        let mut buckets = Vec::with_capacity(count);
        if count >= MANY_BUCKETS {
            prefer_huge_pages(&buckets);
        }
        buckets.resize(count, Bucket::VACANT);
        Index { buckets: buckets.into_boxed_slice(), len: 0 }
    }

    /// The number of entries.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// The bucket in which a lookup starts: hashes are spread over the buckets in their order.
    #[inline]
    const fn home(&self, hash: u32) -> usize {
        ((hash as u64 * self.buckets.len() as u64) >> u32::BITS) as usize
    }

    #[inline]
    const fn after(&self, bucket: usize) -> usize {
        if bucket + 1 == self.buckets.len() { 0 } else { bucket + 1 }
    }

    /// The number of steps from one bucket to the other.
    const fn distance(&self, from: usize, to: usize) -> usize {
        if from <= to { to - from } else { to + self.buckets.len() - from }
    }

    /// Reads what a lookup of `hash` starts with, and returns a value that depends on it.
    ///
    /// Reads of several hashes in a row wait for memory together, as long as no branch depends on what is
    /// read.
    #[inline]
    pub(super) fn touch(&self, hash: u32) -> u64 {
        u64::from(self.buckets[self.home(hash)].hashes[0])
    }

    /// A number with this hash; [`NONE`] if there is none.
    #[inline]
    pub(super) fn any_with(&self, hash: u32) -> u32 {
        let bucket = &self.buckets[self.home(hash)];
        let here = bucket.places_with(hash).trailing_zeros() as usize;
        match bucket.numbers.get(here) {
            Some(number) if *number != NONE => *number,
            Some(_) | None => self.with_hash(hash).next().unwrap_or(NONE),
        }
    }

    /// The numbers with this hash.
    #[inline]
    pub(super) fn with_hash(&self, hash: u32) -> impl Iterator<Item = u32> {
        let mut next = Some(self.home(hash));
        // Some bucket is not full, so the chain ends.
        let chain = std::iter::from_fn(move || {
            let bucket = next?;
            next = self.buckets[bucket].is_full().then_some(self.after(bucket));
            Some(self.buckets[bucket].entries())
        });
        chain.flatten().filter(move |(other, _)| *other == hash).map(|(_, number)| number)
    }

    /// Inserts a number that is not [`NONE`] and not in the index yet.
    pub(super) fn insert(&mut self, hash: u32, number: u32) {
        if self.len >= most_in(self.buckets.len()) {
            self.grow();
        }
        self.put(hash, number);
        self.len += 1;
    }

    /// Removes a number; nothing happens if it is not there.
    pub(super) fn remove(&mut self, hash: u32, number: u32) {
        let mut bucket = self.home(hash);
        let place = loop {
            let is_it = |place: &usize| self.buckets[bucket].hashes[*place] == hash;
            if let Some(place) = self.buckets[bucket].place_of(number).filter(is_it) {
                break place;
            }
            if !self.buckets[bucket].is_full() {
                return;
            }
            bucket = self.after(bucket);
        };
        self.len -= 1;
        self.fill(bucket, place);
    }

    /// Makes a place vacant. If the bucket was full, an entry may have overflowed into a later one and would
    /// not be found any more: it moves to the vacant place and leaves its own to be filled next.
    fn fill(&mut self, mut bucket: usize, mut place: usize) {
        let mut behind = bucket;
        while self.buckets[behind].is_full() {
            behind = self.after(behind);
            let needed = self.distance(bucket, behind);
            let could_stand_here = |(hash, number): (&u32, &u32)| {
                *number != NONE && self.distance(self.home(*hash), behind) >= needed
            };
            let Bucket { hashes, numbers } = self.buckets[behind];
            if let Some(from) = hashes.iter().zip(&numbers).position(could_stand_here) {
                self.buckets[bucket].set(place, hashes[from], numbers[from]);
                (bucket, place) = (behind, from);
            }
        }
        self.buckets[bucket].set(place, u32::MAX, NONE);
    }

    fn put(&mut self, hash: u32, number: u32) {
        let mut bucket = self.home(hash);
        loop {
            if let Some(place) = self.buckets[bucket].place_of(NONE) {
                self.buckets[bucket].set(place, hash, number);
                return;
            }
            bucket = self.after(bucket);
        }
    }

    /// Grows by an eighth: doubling would leave half of the places for a million agents vacant. The entries
    /// are nearly in the order of their hashes, so that memory is traversed from one end to the other.
    fn grow(&mut self) {
        let count = self.buckets.len();
        let mut larger = Self::with_buckets(count + (count / 8).max(FEWEST_BUCKETS));
        larger.len = self.len;
        self.buckets.iter().flat_map(Bucket::entries).for_each(|(hash, number)| larger.put(hash, number));
        *self = larger;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u32),
        /// The entry with this position among the present ones.
        Remove(prop::sample::Index),
    }

    fn step() -> impl Strategy<Value = Step> {
        // Few hashes, at both ends, so that they collide and probing wraps around.
        let hash = prop_oneof![0..3_u32, u32::MAX - 2..=u32::MAX, any::<u32>()];
        prop_oneof![3 => hash.prop_map(Step::Insert), 2 => any::<prop::sample::Index>().prop_map(Step::Remove)]
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_set(steps in prop::collection::vec(step(), 0..400)) {
            let (mut index, mut set) = (Index::default(), BTreeSet::new());
            for (number, step) in (0..).zip(steps) {
                match step {
                    Step::Insert(hash) => {
                        index.insert(hash, number);
                        set.insert((hash, number));
                    }
                    Step::Remove(which) => {
                        let all: Vec<(u32, u32)> = set.iter().copied().collect();
                        if !all.is_empty() {
                            let (hash, number) = *which.get(&all);
                            index.remove(hash, number);
                            set.remove(&(hash, number));
                        }
                    }
                }
                prop_assert_eq!(index.len(), set.len());
            }
            for (hash, _) in &set {
                let found: BTreeSet<(u32, u32)> = index.with_hash(*hash).map(|number| (*hash, number)).collect();
                let entered = set.range((*hash, 0)..=(*hash, u32::MAX)).copied().collect();
                prop_assert_eq!(found, entered);
            }
        }
    }

    #[test]
    fn removing_what_is_not_there_changes_nothing() {
        let mut index = Index::default();
        index.insert(7, 1);
        index.remove(7, 2);
        index.remove(8, 1);
        assert_eq!((index.len(), index.with_hash(7).collect::<Vec<_>>()), (1, vec![1]));
    }

    #[test]
    fn it_grows_and_keeps_everything() {
        let mut index = Index::default();
        let hash = |number: u32| number.wrapping_mul(0x9e37_79b9);
        for number in 0..10_000 {
            index.insert(hash(number), number);
        }
        assert!((0..10_000).all(|number| index.with_hash(hash(number)).any(|found| found == number)));
        assert!(index.buckets.len() * PLACES <= 16_384);
    }
}
