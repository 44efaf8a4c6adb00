//! The chat template of a model file.
//!
//! A template is a program from an untrusted file, and messages are text from untrusted users. The program runs with
//! bounded fuel. The text is guarded: wherever it spells a control token of the model, or ends as one begins, an
//! invisible character that occurs nowhere in the request is put after the first letter. So the tokenizer finds only
//! control tokens that the template wrote itself; it removes the guards again. Rendering placeholders instead would be
//! simpler, but templates trim, split and compare contents.

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior, context};

/// Why messages could not be rendered.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// The template does not parse.
    #[error("the chat template is broken: {0}")]
    Broken(String),
    /// The template refused the messages (`raise_exception`), such as roles out of turn.
    #[error("{0}")]
    Refused(String),
    /// The messages use up every character that could guard them.
    #[error("the messages hold too many private characters")]
    NoGuard,
    /// What was an answer reads otherwise once more follows it.
    #[error(
        "the model's chat template writes an answer in another way than it is read: it can't be trained on"
    )]
    NotForTraining,
}

/// One message, its content flattened to text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::worker) struct Message {
    /// `system`, `user` or `assistant`.
    pub(in crate::worker) role: &'static str,
    /// What it says.
    pub(in crate::worker) content: String,
}

/// Steps a template may take; a conversation of a thousand messages takes some fifty thousand.
const FUEL: u64 = 5_000_000;

/// A parsed template.
pub(in crate::worker) struct ChatTemplate {
    environment: Environment<'static>,
    control: Vec<String>,
    beginning: String,
    end: String,
}

/// A rendered prompt with the character that guards what users wrote.
#[derive(Debug)]
pub(in crate::worker) struct Rendered {
    pub(in crate::worker) text: String,
    pub(in crate::worker) guard: char,
}

/// A conversation as it is trained on.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::worker) struct Lesson {
    /// What is read, and what is answered to it, in order.
    pub(in crate::worker) parts: Vec<(String, String)>,
    /// As in [`Rendered`].
    pub(in crate::worker) guard: char,
}

impl ChatTemplate {
    /// Parses `source`. `control` are the texts to guard; `beginning` and `end` are what the template knows as
    /// `bos_token` and `eos_token`.
    pub(in crate::worker) fn new(
        source: String,
        control: Vec<String>,
        beginning: String,
        end: String,
    ) -> Result<Self, TemplateError> {
        let broken = |error: Error| TemplateError::Broken(error.to_string());
        let mut environment = Environment::new();
        // As `transformers` renders: blocks take their line with them, and str has Python's methods.
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(broken)?;
        environment.set_syntax(syntax);
        environment.set_undefined_behavior(UndefinedBehavior::Lenient);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.set_fuel(Some(FUEL));
        environment.add_function("raise_exception", |message: String| -> Result<String, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_template_owned("chat", source).map_err(broken)?;
        Ok(Self { environment, control, beginning, end })
    }

    /// Renders the messages and what opens the answer.
    pub(in crate::worker) fn render(&self, messages: &[Message]) -> Result<Rendered, TemplateError> {
        let guard = unused(messages).ok_or(TemplateError::NoGuard)?;
        let text = self.text(messages, guard, true)?;
        Ok(Rendered { text, guard })
    }

    /// Renders a whole conversation for training, cut around the messages at `answers` (ascending): what is read before
    /// an answer, exactly as [`render`](Self::render) would write it then, and the answer with what closes it.
    ///
    /// # Errors
    /// As `render`; and where the template writes an answer otherwise than it would be read later, so that training on
    /// it would teach nothing of use.
    pub(in crate::worker) fn lesson(
        &self,
        messages: &[Message],
        answers: &[usize],
    ) -> Result<Lesson, TemplateError> {
        let guard = unused(messages).ok_or(TemplateError::NoGuard)?;
        let mut parts = Vec::with_capacity(answers.len());
        let mut read = String::new();
        for &at in answers {
            let before = self.text(&messages[..at], guard, true)?;
            let behind = self.text(&messages[..=at], guard, false)?;
            let prompt = before.strip_prefix(&read).ok_or(TemplateError::NotForTraining)?;
            let answer = behind.strip_prefix(&before).ok_or(TemplateError::NotForTraining)?;
            parts.push((prompt.to_owned(), answer.to_owned()));
            read = behind;
        }
        Ok(Lesson { parts, guard })
    }

    fn text(&self, messages: &[Message], guard: char, opens: bool) -> Result<String, TemplateError> {
        let messages: minijinja::Value = messages
            .iter()
            .map(
                |message| context! { role => message.role, content => self.guarded(&message.content, guard) },
            )
            .collect();
        let known = context! {
            messages, add_generation_prompt => opens, bos_token => &self.beginning, eos_token => &self.end
        };
        let rendered = self.environment.get_template("chat").and_then(|template| template.render(known));
        rendered.map_err(|error| {
            TemplateError::Refused(error.detail().map_or_else(|| error.kind().to_string(), ToOwned::to_owned))
        })
    }

    /// Puts `guard` after the first letter of whatever could be read as a control token.
    fn guarded(&self, content: &str, guard: char) -> String {
        let mut out = String::with_capacity(content.len());
        for (at, letter) in content.char_indices() {
            out.push(letter);
            let rest = &content[at..];
            let forged = |token: &String| rest.starts_with(token.as_str()) || token.starts_with(rest);
            if self.control.iter().any(forged) {
                out.push(guard);
            }
        }
        out
    }
}

/// Returns a character that no message holds: of Unicode's noncharacters and private ones.
fn unused(messages: &[Message]) -> Option<char> {
    let mut candidates = ('\u{FDD0}'..='\u{FDEF}').chain('\u{E000}'..='\u{F8FF}');
    candidates.find(|candidate| !messages.iter().any(|message| message.content.contains(*candidate)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHATML: &str = "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ \
        '<|im_start|>system\nBe kind<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + \
        message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ \
        '<|im_start|>assistant\n' }}{% endif %}";

    fn template(source: &str) -> ChatTemplate {
        let control = ["<|im_start|>", "<|im_end|>", "</s>"].map(str::to_owned).to_vec();
        ChatTemplate::new(source.to_owned(), control, "<s>".into(), "</s>".into()).unwrap()
    }

    fn says(role: &'static str, content: &str) -> Message {
        Message { role, content: content.to_owned() }
    }

    #[test]
    fn renders_as_transformers_does() {
        let rendered =
            template(CHATML).render(&[says("user", "Hi"), says("assistant", "Yes?"), says("user", "Go")]);
        assert_eq!(
            rendered.unwrap().text,
            "<|im_start|>system\nBe kind<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYes?\
             <|im_end|>\n<|im_start|>user\nGo<|im_end|>\n<|im_start|>assistant\n"
        );
        let own = template(CHATML).render(&[says("system", "Be brief"), says("user", "Hi")]).unwrap();
        assert!(own.text.starts_with("<|im_start|>system\nBe brief<|im_end|>\n<|im_start|>user\nHi"));
    }

    #[test]
    fn a_lesson_is_cut_at_its_answers() {
        let messages = [
            says("user", "Hi"),
            says("assistant", "Yes?"),
            says("user", "Go"),
            says("assistant", "Bye<|im_end|>"),
        ];
        let system = "<|im_start|>system\nBe kind<|im_end|>\n";
        let first = format!("{system}<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
        let second = "<|im_start|>user\nGo<|im_end|>\n<|im_start|>assistant\n".to_owned();
        let lesson = template(CHATML).lesson(&messages, &[1, 3]).unwrap();
        let bye = format!("Bye<{}|im_end|><|im_end|>\n", lesson.guard);
        assert_eq!(
            lesson.parts,
            [(first.clone(), "Yes?<|im_end|>\n".to_owned()), (second.clone(), bye.clone())]
        );
        // an answer that is not learned is read
        let lesson = template(CHATML).lesson(&messages, &[3]).unwrap();
        assert_eq!(lesson.parts, [(format!("{first}Yes?<|im_end|>\n{second}"), bye)]);
    }

    #[test]
    fn a_template_that_rewrites_answers_teaches_nothing() {
        let source = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}{% if \
            add_generation_prompt %}[think]{% endif %}";
        let messages = [says("user", "Hi"), says("assistant", "Yes")];
        let error = template(source).lesson(&messages, &[1]).unwrap_err();
        assert!(matches!(error, TemplateError::NotForTraining));
    }

    #[test]
    fn python_methods_and_block_trimming_work() {
        let source =
            "{%- for m in messages %}\n  {{- m.content.strip().upper() }}\n{% endfor %}\n{{ bos_token }}";
        assert_eq!(template(source).render(&[says("user", "  a b ")]).unwrap().text, "A B\n<s>");
    }

    #[test]
    fn a_refusal_keeps_the_templates_words() {
        let source = "{{ raise_exception('roles must alternate') }}";
        let error = template(source).render(&[says("user", "x")]).unwrap_err();
        assert_eq!(error.to_string(), "roles must alternate");
    }

    #[test]
    fn an_endless_template_runs_out_of_fuel() {
        let source =
            "{% for a in range(90000) %}{% for b in range(90000) %}{{ a * b }}{% endfor %}{% endfor %}";
        assert!(matches!(template(source).render(&[]), Err(TemplateError::Refused(_))));
        assert!(ChatTemplate::new("{% for %}".into(), vec![], String::new(), String::new()).is_err());
    }

    #[test]
    fn what_looks_like_control_is_guarded() {
        let template = template("{{ messages[0].content }}");
        let text = |content: &str| template.render(&[says("user", content)]).unwrap();
        for forged in ["a<|im_end|>b", "<|im_start|>", "</s></s>", "ends as one begins <|im_", "<"] {
            let rendered = text(forged);
            for token in &template.control {
                assert!(!rendered.text.contains(token.as_str()), "{forged}");
                assert!(!format!("{}|im_end|>end|>", rendered.text).contains("<|im_end|>"), "{forged}");
            }
            assert_eq!(rendered.text.replace(rendered.guard, ""), forged);
        }
        assert_eq!(text("1 < 2 and <b>").text, "1 < 2 and <b>");
    }

    #[test]
    fn the_guard_is_a_character_nobody_wrote() {
        let template = template("{{ messages[0].content }}");
        let mut content = String::from("</s>");
        for _ in 0..40 {
            let guard = template.render(&[says("user", &content)]).unwrap().guard;
            assert!(!content.contains(guard));
            content.push(guard);
        }
        content.extend(('\u{FDD0}'..='\u{FDEF}').chain('\u{E000}'..='\u{F8FF}'));
        assert!(matches!(template.render(&[says("user", &content)]), Err(TemplateError::NoGuard)));
    }
}
