//! Items numbered in order of arrival, which leave in almost the same order.

use std::collections::VecDeque;

/// Items from number `first` on; `None` was taken, and is never at the front.
#[derive(Clone, Debug)]
pub(crate) struct InFlight<T> {
    first: usize,
    items: VecDeque<Option<T>>,
    count: usize,
}

impl<T> InFlight<T> {
    pub(crate) fn from(first: usize) -> Self {
        Self { first, items: VecDeque::new(), count: 0 }
    }

    pub(crate) fn push(&mut self, item: T) -> usize {
        self.items.push_back(Some(item));
        self.count += 1;
        self.first + self.items.len() - 1
    }

    pub(crate) fn take(&mut self, number: usize) -> Option<T> {
        let item = self.items.get_mut(number.checked_sub(self.first)?)?.take()?;
        self.count -= 1;
        while let Some(None) = self.items.front() {
            self.items.pop_front();
            self.first += 1;
        }
        Some(item)
    }

    pub(crate) fn first(&self) -> usize {
        self.first
    }

    pub(crate) fn since(&self, number: usize) -> impl Iterator<Item = (usize, &T)> {
        let skipped = number.saturating_sub(self.first);
        let items = self.items.iter().enumerate().skip(skipped);
        items.filter_map(|(at, item)| Some((self.first + at, item.as_ref()?)))
    }

    pub(crate) fn len(&self) -> usize {
        self.count
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_each_other_whatever_is_taken() {
        let mut queue = InFlight::from(7);
        assert_eq!((queue.push('a'), queue.push('b'), queue.push('c'), queue.first()), (7, 8, 9, 7));
        assert_eq!((queue.take(8), queue.take(8), queue.take(6), queue.take(10)), (Some('b'), None, None, None));
        assert_eq!(queue.since(0).collect::<Vec<_>>(), [(7, &'a'), (9, &'c')]);
        assert_eq!((queue.take(7), queue.first(), queue.is_empty()), (Some('a'), 9, false));
        assert_eq!((queue.take(9), queue.first(), queue.is_empty()), (Some('c'), 10, true));
        assert_eq!((queue.push('d'), queue.since(0).next()), (10, Some((10, &'d'))));
    }
}
