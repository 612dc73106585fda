use thermocline::memoize;

struct Lexer<'a>(&'a str);

impl<'a> Lexer<'a> {
    #[memoize(ignore(self))]
    fn bound<'b: 'a>(&self, text: &'b str) -> usize {
        text.len() + self.0.len()
    }

    #[memoize(ignore(self))]
    fn bound_apart<'b>(&self, text: &'b str) -> usize
    where
        'b: 'a,
    {
        text.len() + self.0.len()
    }
}

fn main() {}
