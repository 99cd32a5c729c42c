//! Suggestions for misspelt names, by edit distance.

/// The known name with the least edit distance, unless all are too different.
pub(crate) fn nearest<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    // At most a third of the letters, so that a short name is not corrected to another word.
    let most = (name.len() / 3).min(3);
    known
        .map(|known| (distance(name, known), known))
        .filter(|(distance, _)| *distance <= most)
        .min()
        .map(|best| best.1)
}

/// The Levenshtein distance of two words; `usize::MAX` if their lengths differ by more than three.
fn distance(one: &str, other: &str) -> usize {
    if one.len().abs_diff(other.len()) > 3 {
        return usize::MAX;
    }
    let other = other.as_bytes();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (line, letter) in one.bytes().enumerate() {
        let mut corner = line;
        row[0] = line + 1;
        for (column, wanted) in other.iter().enumerate() {
            let changed = corner + usize::from(letter != *wanted);
            corner = row[column + 1];
            row[column + 1] = changed.min(corner + 1).min(row[column] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_pen_is_recognised_and_another_word_is_not() {
        assert_eq!(
            (distance("stall", "stall"), distance("stal", "stall"), distance("kitten", "sitting")),
            (0, 1, 3)
        );
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(nearest("soket", ["udp", "socket"].into_iter()), Some("socket"));
        assert_eq!(nearest("tcp", ["udp", "socket"].into_iter()), None);
    }
}
