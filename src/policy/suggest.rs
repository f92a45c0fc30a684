//! "Did you mean": the nearest of a few known words.

/// The known word that is nearest to `word`, if one is near enough to be meant.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_ascii_lowercase();
    let near_enough = 1 + word.len() / 4;
    known
        .into_iter()
        .filter(|k| k.len().abs_diff(word.len()) <= near_enough)
        .map(|k| (distance(&word, &k.to_ascii_lowercase()), k))
        .filter(|(d, _)| *d <= near_enough)
        .min_by_key(|(d, _)| *d)
        .map(|(_, k)| k)
}

/// How many bytes must be put in, taken out, changed, or swapped with their neighbour.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let changed = usize::from(a[i - 1] != b[j - 1]);
            let mut d = (above[j] + 1)
                .min(row[j - 1] + 1)
                .min(above[j - 1] + changed);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                d = d.min(before[j - 2] + 1);
            }
            row.push(d);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_word() {
        let known = ["src", "dst", "protocol", "sport", "dport"];
        assert_eq!(nearest("scr", known), Some("src"));
        assert_eq!(nearest("Protocol", known), Some("protocol"));
        assert_eq!(nearest("dports", known), Some("dport"));
        assert_eq!(nearest("length", known), None);
    }
}
