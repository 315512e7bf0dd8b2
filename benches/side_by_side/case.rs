//! What a case is: contenders that take turns, their figures, and what is aimed at.
//!
//! Invariant: contenders run one at a time, A B C, A B C, …; every contender that was entered is in
//! the result, with its figures or with what kept it from running.

/// What a goal compares with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Against {
    /// Another contender's median, by its place.
    Contender(usize),
    /// A fixed amount in the case's unit.
    Amount(f64),
}

/// How the ratio must be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bound {
    Least(f64),
    Most(f64),
}

/// One goal of one contender: its figure divided by another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Goal {
    pub against: Against,
    pub bound: Bound,
}

/// How a contender is run once, giving its figure or what went wrong.
type Run<'a> = Box<dyn FnMut() -> Result<f64, String> + 'a>;

/// One that is entered for a case.
pub struct Entrant<'a> {
    name: String,
    goals: Vec<Goal>,
    run: Run<'a>,
}

impl<'a> Entrant<'a> {
    pub fn new(name: &str, run: impl FnMut() -> Result<f64, String> + 'a) -> Self {
        Self { name: name.to_owned(), goals: Vec::new(), run: Box::new(run) }
    }

    /// One whose figure is known: a line's bandwidth, the bytes of a model.
    pub fn known(name: &str, figure: f64) -> Self {
        Self::new(name, move || Ok(figure))
    }

    fn goal(mut self, against: Against, bound: Bound) -> Self {
        self.goals.push(Goal { against, bound });
        self
    }

    /// Aims at no less than this ratio to the contender at that place.
    pub fn least(self, contender: usize, ratio: f64) -> Self {
        self.goal(Against::Contender(contender), Bound::Least(ratio))
    }

    /// Aims at no more than this ratio to the contender at that place.
    pub fn most(self, contender: usize, ratio: f64) -> Self {
        self.goal(Against::Contender(contender), Bound::Most(ratio))
    }

    /// Aims at no more than this, in the case's unit.
    pub fn within(self, amount: f64) -> Self {
        self.goal(Against::Amount(amount), Bound::Most(1.0))
    }
}

/// What a case is called and measured in.
pub struct Heading {
    /// What it is about, for the plot.
    pub theme: &'static str,
    pub title: String,
    pub unit: &'static str,
    /// What a reader must know to read it right.
    pub note: Option<&'static str>,
}

/// A contender that ran, or did not.
pub struct Contender {
    pub name: String,
    /// One for each round.
    pub figures: Vec<f64>,
    pub goals: Vec<Goal>,
    /// Why it did not run to the end.
    pub trouble: Option<String>,
}

pub struct Case {
    pub heading: Heading,
    pub contenders: Vec<Contender>,
}

/// What became of a goal.
pub struct Outcome {
    pub goal: Goal,
    /// None if one of the two has no figure.
    pub ratio: Option<f64>,
    pub met: bool,
    /// What it was compared with.
    pub than: String,
}

/// Runs the contenders in turn. One that fails is not run again, and says so.
pub fn compare(heading: Heading, rounds: usize, entrants: Vec<Entrant<'_>>) -> Case {
    eprintln!("{}: {}", heading.theme, heading.title);
    let mut runs = Vec::new();
    let mut contenders = Vec::new();
    for Entrant { name, goals, run } in entrants {
        contenders.push(Contender { name, figures: Vec::new(), goals, trouble: None });
        runs.push(run);
    }
    for _ in 0..rounds {
        for (contender, run) in contenders.iter_mut().zip(&mut runs) {
            if contender.trouble.is_some() {
                continue;
            }
            match run() {
                Ok(figure) => contender.figures.push(figure),
                Err(why) => {
                    eprintln!("  {} CANNOT RUN: {why}", contender.name);
                    contender.figures.clear();
                    contender.trouble = Some(why);
                }
            }
        }
    }
    for c in &contenders {
        if let Some(median) = c.median() {
            eprintln!("  {}: {} {}", c.name, shown(median), heading.unit);
        }
    }
    Case { heading, contenders }
}

impl Contender {
    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.figures.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }

    /// Of an even number, the mean of the middle two: two rounds must not be judged by the better.
    pub fn median(&self) -> Option<f64> {
        let sorted = self.sorted();
        let middle = sorted.len() / 2;
        let upper = *sorted.get(middle)?;
        let even = sorted.len().is_multiple_of(2);
        Some(if even { f64::midpoint(sorted[middle - 1], upper) } else { upper })
    }

    /// The middle half of the rounds, as a share of the median; none of fewer than three.
    pub fn spread(&self) -> Option<f64> {
        let sorted = self.sorted();
        let at = |quarter: usize| sorted[(sorted.len() - 1) * quarter / 4];
        let median = self.median().filter(|m| *m > 0.0 && sorted.len() > 2)?;
        Some((at(3) - at(1)) / median)
    }
}

impl Case {
    /// A contender's median divided by the first one's.
    pub fn ratio(&self, place: usize) -> Option<f64> {
        Some(self.contenders[place].median()? / self.contenders[0].median()?)
    }

    /// What became of a contender's goals. One that did not run met none.
    pub fn outcomes(&self, place: usize) -> Vec<Outcome> {
        let own = self.contenders[place].median();
        let of = |goal: &Goal| {
            let (base, than) = match goal.against {
                Against::Contender(at) => {
                    (self.contenders[at].median(), self.contenders[at].name.clone())
                }
                Against::Amount(n) => (Some(n), format!("{} {}", shown(n), self.heading.unit)),
            };
            let ratio = own.zip(base).map(|(own, base)| own / base);
            let met = ratio.is_some_and(|r| match goal.bound {
                Bound::Least(bound) => r >= bound,
                Bound::Most(bound) => r <= bound,
            });
            Outcome { goal: *goal, ratio, met, than }
        };
        self.contenders[place].goals.iter().map(of).collect()
    }
}

/// With as many digits as say something.
pub fn shown(figure: f64) -> String {
    match figure.abs() {
        n if n >= 100.0 || n == 0.0 => format!("{figure:.0}"),
        n if n >= 10.0 => format!("{figure:.1}"),
        n if n >= 0.1 => format!("{figure:.2}"),
        _ => format!("{figure:.4}"),
    }
}
