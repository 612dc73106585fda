//! Methods and their companions.

use std::{path::Path, sync::Arc};

use serde::Serialize;
use thermocline::{CallOptions, memoize};

use crate::STORE;

#[derive(Clone, Serialize)]
struct Shape {
    width: u32,
    height: u32,
}

impl Shape {
    /// The area, many times.
    #[memoize(store = STORE)]
    fn area(&self, times: u32) -> u32 {
        self.width * self.height * times
    }

    #[memoize(store = STORE, ignore(self))]
    fn constant(&self, name: &str) -> String {
        format!("{name} of {}", self.width)
    }

    #[memoize(store = STORE)]
    fn consumed(self) -> u32 {
        self.width
    }

    #[memoize(store = STORE)]
    fn shared(self: Arc<Self>, text: Option<&str>) -> usize {
        self.width as usize + text.map_or(0, str::len)
    }

    #[memoize(store = STORE)]
    fn square(width: u32) -> Option<u32> {
        let square = Self { width, height: width };
        Some(square.width * square.height)
    }

    #[memoize(store = STORE, ignore(self))]
    fn at(&self, path: &Path) -> usize {
        path.as_os_str().len()
    }

    #[memoize(store = STORE)]
    async fn slow(&self, times: u32) -> u32 {
        self.area(times)
    }

    #[memoize(store = STORE)]
    fn scaled<T: Serialize + Copy + Into<u64>>(&self, by: T) -> u64 {
        u64::from(self.width) * by.into()
    }
}

/// Idea 7: receivers with another state get other answers; an equal one hits.
#[test]
fn receivers_are_part_of_the_key() {
    let (one, other) = (Shape { width: 2, height: 3 }, Shape { width: 4, height: 5 });
    assert_eq!((one.area(1), other.area(1), one.clone().area(1)), (6, 20, 6));
    assert!(Shape::area_memo().contains(&one.clone(), 1) && !Shape::area_memo().contains(&one, 9));
    assert_eq!((one.constant("a"), other.constant("a")), ("a of 2".to_owned(), "a of 2".to_owned()));
    assert_eq!((one.clone().consumed(), other.clone().consumed()), (2, 4));
    assert_eq!((Arc::new(one).shared(Some("ab")), Arc::new(other).shared(None)), (4, 4));
}

/// All companions, on the value that the type gives.
#[test]
fn methods_have_companions() {
    let shape = Shape { width: 20, height: 30 };
    let area = Shape::area_memo();
    assert!(!area.contains(&shape, 2));
    assert_eq!(area.get(&shape, 2), None);
    area.insert(&shape, 2, 7);
    assert_eq!((shape.area(2), area.get(&shape, 2), area.contains(&shape, 2)), (7, Some(7), true));
    assert_eq!(area.uncached(&shape, 2), 1200);
    assert_eq!((shape.area(2), area.refresh(&shape, 2), shape.area(2)), (7, 1200, 1200));
    assert_eq!(area.with(CallOptions::new().skip()).call(&shape, 1), 600);
    assert_ne!(area.key(&shape, 2), area.key(&shape, 1));
    assert_eq!(area.call(&shape, 2).unwrap().arguments.get::<u32>("times"), Some(2));
    let found = area.query().argument("self", &shape).argument("times", &2u32).only().unwrap();
    assert_eq!(found.result, 1200);
    assert_eq!((shape.at(Path::new("a")), shape.at(Path::new("bc"))), (1, 2));
    assert_eq!(Shape::at_memo().query().argument("path", Path::new("bc")).only().unwrap().result, 2);
    assert!(area.info().entries >= 1);
    assert!(area.remove(&shape, 2));
    assert_eq!(Shape::square(3), Some(9));
    assert_eq!(Shape::square_memo().get(3), Some(Some(9)));
    Shape::square_memo().clear();
    assert_eq!(Shape::square_memo().get(3), None);
}

#[test]
fn methods_may_be_async_and_generic() {
    let shape = Shape { width: 200, height: 300 };
    assert_eq!(pollster::block_on(shape.slow(2)), 120_000);
    assert_eq!(pollster::block_on(shape.slow(2)), 120_000);
    assert_eq!(pollster::block_on(Shape::slow_memo().refresh(&shape, 2)), 120_000);
    assert!(Shape::slow_memo().contains(&shape, 2));
    assert_eq!((shape.scaled(2u8), shape.scaled(2u32)), (400, 400));
    assert_eq!(Shape::scaled_memo::<u8>().query().iter().count(), 1);
    assert!(Shape::scaled_memo().contains(&shape, 2u32));
    assert!(!Shape::scaled_memo().contains(&shape, 2u64));
}

#[derive(Serialize)]
struct Stack<T> {
    items: Vec<T>,
}

impl<T: Serialize + Clone> Stack<T> {
    #[memoize(store = STORE)]
    fn depth(&self, more: usize) -> usize {
        self.items.len() + more
    }
}

/// Methods of one generic type for different types are different functions.
#[test]
fn instances_of_a_generic_type_share_nothing() {
    let (bytes, words) = (Stack::<u8> { items: vec![] }, Stack::<u16> { items: vec![] });
    Stack::<u8>::depth_memo().insert(&bytes, 1, 100);
    assert_eq!((bytes.depth(1), words.depth(1)), (100, 1));
    assert_eq!(Stack::<u16>::depth_memo().info().entries, 1);
    Stack::<u8>::depth_memo().clear();
    assert_eq!((bytes.depth(1), Stack::<u16>::depth_memo().contains(&words, 1)), (1, true));
}

struct Lexer<'a> {
    source: &'a str,
}

impl<'a> Lexer<'a> {
    #[memoize(store = STORE, ignore(self))]
    fn token(&self, text: &'a str) -> usize {
        text.len() + self.source.len()
    }

    #[memoize(store = STORE, ignore(self))]
    fn longer<'b>(&self, text: &'a str, other: &'b str, last: Option<&'_ str>) -> usize {
        text.len() + other.len() + last.map_or(0, str::len)
    }

    #[memoize(store = STORE, ignore(self))]
    async fn later(&self, text: &'a str, other: &str) -> usize {
        text.len() + other.len()
    }
}

/// A lifetime of the `impl` block stays what it is.
#[test]
fn arguments_may_live_as_long_as_the_block_says() {
    let source = String::from("source");
    let lexer = Lexer { source: &source };
    assert_eq!((lexer.token(&source), Lexer::token_memo().get(&lexer, &source)), (12, Some(12)));
    assert_eq!(lexer.longer(&source, "other", Some("last")), 15);
    assert!(Lexer::longer_memo().contains(&lexer, &source, &String::from("other"), Some("last")));
    assert_eq!(pollster::block_on(lexer.later(&source, "other")), 11);
    assert_eq!(pollster::block_on(Lexer::later_memo().refresh(&lexer, &source, "other")), 11);
}

type Told<'a> = &'a dyn Fn(&str);

impl Shape {
    #[memoize(store = STORE, ignore(progress, each))]
    fn telling(&self, progress: &dyn Fn(&str), each: Box<dyn Fn(&u32) -> &u32>) -> u32 {
        progress("telling");
        *each(&self.width)
    }

    #[memoize(store = STORE, ignore(told, all, plain, mine))]
    fn choosing<'b>(
        &self,
        told: Told<'_>,
        all: &(dyn for<'x> Fn(&'x u32) -> &'x u32 + Send),
        plain: for<'x> fn(&'x u32) -> &'x u32,
        mine: &dyn Fn(&'b u32, &u32) -> &'b u32,
        number: &'b u32,
    ) -> u32 {
        told("choosing");
        *plain(all(mine(number, &self.width)))
    }
}

/// What closures take has lifetimes of its own.
#[test]
fn arguments_may_be_closures_that_take_references() {
    let shape = Shape { width: 9, height: 9 };
    let told = std::cell::Cell::new(0);
    let tell = |text: &str| told.set(told.get() + text.len());
    assert_eq!((shape.telling(&tell, Box::new(|width| width)), told.get()), (9, 7));
    assert!(Shape::telling_memo().contains(&shape, &tell, Box::new(|width| width)));
    assert_eq!(shape.choosing(&tell, &|width| width, |width| width, &|first, _| first, &3), 3);
    let choosing = Shape::choosing_memo();
    assert_eq!(choosing.get(&shape, &tell, &|width| width, |width| width, &|first, _| first, &3), Some(3));

    #[memoize(store = STORE, ignore(progress, each))]
    fn free(progress: &dyn Fn(&str), each: Box<dyn Fn(&u32) -> &u32>, number: u32) -> u32 {
        progress("free");
        *each(&number)
    }
    assert_eq!((free(&tell, Box::new(|number| number), 1), free::query().number(1).only().unwrap().result), (1, 1));
}
