//! By what hash an agent is found: open addressing with linear probing, eight bytes for an entry.
//!
//! An entry is half of the hash and the number of a slot, so that a look-up touches one cache line of the index and then
//! the slot that it is looking for, and growing or removing touches no slot at all. The memory that a look-up will touch is
//! known from its hash alone, which lets the look-ups of a batch wait for it together: see [`Index::touch`].
//!
//! Linear probing and deletion by shifting back: D. E. Knuth, "The Art of Computer Programming", volume 3, 6.4,
//! algorithms L and R.

/// No more than three quarters of the places are taken.
const fn most_in(places: usize) -> usize {
    places / 4 * 3
}

const FEWEST_PLACES: usize = 64;

/// The hash in the high half, the slot's number in the low one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry(u64);

impl Entry {
    /// Its number is that of no slot.
    const VACANT: Entry = Entry(u64::MAX);

    const fn new(hash: u32, number: u32) -> Self {
        Entry((hash as u64) << 32 | number as u64)
    }

    const fn hash(self) -> u32 {
        (self.0 >> 32) as u32
    }

    #[expect(clippy::cast_possible_truncation, reason = "the low half")]
    const fn number(self) -> u32 {
        self.0 as u32
    }

    const fn is_vacant(self) -> bool {
        self.number() == u32::MAX
    }
}

/// Numbers of slots by hash. Several may have the same.
#[derive(Debug)]
pub(super) struct Index {
    places: Box<[Entry]>,
    len: usize,
}

impl Default for Index {
    fn default() -> Self {
        Self::with_places(FEWEST_PLACES)
    }
}

impl Index {
    fn with_places(places: usize) -> Self {
        Index { places: vec![Entry::VACANT; places].into_boxed_slice(), len: 0 }
    }

    /// How many numbers there are in it.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// The place at which a look-up begins: hashes are spread over the places in their order.
    #[inline]
    const fn home(&self, hash: u32) -> usize {
        ((hash as u64 * self.places.len() as u64) >> u32::BITS) as usize
    }

    #[inline]
    const fn after(&self, place: usize) -> usize {
        if place + 1 == self.places.len() { 0 } else { place + 1 }
    }

    /// How many places one goes from one to the other.
    const fn distance(&self, from: usize, to: usize) -> usize {
        if from <= to { to - from } else { to + self.places.len() - from }
    }

    /// Reads what a look-up of `hash` begins with, and gives something that depends on it.
    ///
    /// Reads of several hashes in a row wait for memory together, as long as nothing is decided by what is read.
    #[inline]
    pub(super) fn touch(&self, hash: u32) -> u64 {
        self.places[self.home(hash)].0
    }

    /// The numbers that were entered with this hash.
    #[inline]
    pub(super) fn with_hash(&self, hash: u32) -> impl Iterator<Item = u32> {
        let mut place = self.home(hash);
        std::iter::from_fn(move || {
            loop {
                let entry = self.places[place];
                // Some place is vacant, so this ends.
                if entry.is_vacant() {
                    return None;
                }
                place = self.after(place);
                if entry.hash() == hash {
                    return Some(entry.number());
                }
            }
        })
    }

    /// Enters a number that is not [`u32::MAX`], and is not there yet.
    pub(super) fn insert(&mut self, hash: u32, number: u32) {
        if self.len >= most_in(self.places.len()) {
            self.grow();
        }
        self.put(Entry::new(hash, number));
        self.len += 1;
    }

    /// Takes a number out; nothing happens if it is not there.
    pub(super) fn remove(&mut self, hash: u32, number: u32) {
        let mut hole = self.home(hash);
        while self.places[hole] != Entry::new(hash, number) {
            if self.places[hole].is_vacant() {
                return;
            }
            hole = self.after(hole);
        }
        self.len -= 1;
        // Whoever stands behind the hole only because it was taken moves into it, and leaves the next hole.
        let mut place = self.after(hole);
        loop {
            let entry = self.places[place];
            if entry.is_vacant() {
                self.places[hole] = Entry::VACANT;
                return;
            }
            if self.distance(self.home(entry.hash()), place) >= self.distance(hole, place) {
                self.places[hole] = entry;
                hole = place;
            }
            place = self.after(place);
        }
    }

    fn put(&mut self, entry: Entry) {
        let mut place = self.home(entry.hash());
        while !self.places[place].is_vacant() {
            place = self.after(place);
        }
        self.places[place] = entry;
    }

    /// Grows by an eighth: doubling would leave half of a million agents' places vacant. The entries stand nearly in the
    /// order of their hashes, so memory is gone through from one end to the other.
    fn grow(&mut self) {
        let places = self.places.len();
        let mut larger =
            Index { len: self.len, ..Self::with_places(places + (places / 8).max(FEWEST_PLACES)) };
        for entry in self.places.iter().filter(|entry| !entry.is_vacant()) {
            larger.put(*entry);
        }
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
        /// The one at this place among those that are there.
        Remove(prop::sample::Index),
    }

    fn step() -> impl Strategy<Value = Step> {
        // Few hashes, at both ends, so that they collide and probing goes round the end.
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
        assert!(index.places.len() <= 16_384);
    }
}
