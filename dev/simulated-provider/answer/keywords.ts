// Words of a prompt that carry its subject: lower case, without the words that every English text has. Pure.

const WORD = /[\p{L}\p{N}][\p{L}\p{N}'’-]*/gu;
const WORD_OR_MARK = /[\p{L}\p{N}][\p{L}\p{N}'’-]*|[^\s\p{L}\p{N}]/gu;
const ARTICLE = /^(?:an?|the)$/i;
const COMMON = new Set(
  `a about above across after again against all almost along already also although always am among an and another any are around as ask
   at away back be because become been before being below between both but by call came can cannot come could describe did do does done
   down during each either else enough even ever every explain few find first following for from full further gave get give given gives
   go got had has have having he her here him his how however i if in instead into is it its itself just keep kept know last least less
   let like list long look made make makes many may me might more most much must my need needs never next no nor not now of off often on
   once one only onto or other our out over own per please put quite rather really said same say second see several shall she should show
   since so some still such take tell than that the their them then there these they thing things this those though three through thus
   to together too toward two under until up upon us use used using very want was way we well went were what when where whether which
   while who whole whose why will with within without word words would write yes yet you your sentence sentences paragraph compare exactly choose today summarise
   summarize summary answer question text briefly short step steps plan`
    .split(/\s+/)
    .filter((word) => word !== ''),
);

/** All words of a text in lower case, in order. */
export function wordsOf(text: string): string[] {
  return (text.match(WORD) ?? []).map((word) => word.toLowerCase());
}

/** Words worth counting. */
export function contentWords(text: string): string[] {
  return wordsOf(text).filter((word) => word.length > 2 && !COMMON.has(word) && !/^\d+$/.test(word));
}

/**
 * What a text speaks of, as phrases of at most two words with their article (`a token bucket`), the most mentioned first and
 * earlier ones first among equals. Written as in the text.
 */
export function subjectsOf(text: string, count: number): string[] {
  const found = new Map<string, { phrase: string; mentions: number }>();
  for (const phrase of phrasesOf(text)) {
    const key = phrase.toLowerCase();
    const known = found.get(key);
    if (known === undefined) found.set(key, { phrase, mentions: 1 });
    else known.mentions += 1;
  }
  return [...found.values()]
    .sort((left, right) => right.mentions - left.mentions)
    .slice(0, count)
    .map((each) => each.phrase);
}

function phrasesOf(text: string): string[] {
  const phrases: string[] = [];
  let article = '';
  let words: string[] = [];
  const finish = () => {
    if (words.length > 0) phrases.push([article, ...words].join(' ').trim());
    article = '';
    words = [];
  };
  for (const token of text.match(WORD_OR_MARK) ?? []) {
    if (words.length === 2 || contentWords(token).length === 0) finish();
    if (contentWords(token).length > 0) words.push(token);
    else if (ARTICLE.test(token)) article = token.toLowerCase();
  }
  finish();
  return phrases;
}

/** The words a text is most about, most frequent first, earlier ones first among equals. */
export function keywordsOf(text: string, count: number): string[] {
  const frequency = frequencies(contentWords(text));
  return [...frequency.entries()]
    .sort(([, left], [, right]) => right - left)
    .slice(0, count)
    .map(([word]) => word);
}

export function frequencies(words: readonly string[]): Map<string, number> {
  const counts = new Map<string, number>();
  for (const word of words) counts.set(word, (counts.get(word) ?? 0) + 1);
  return counts;
}

/** A word without its commonest endings, so that `limits` meets `limit`. */
export function stem(word: string): string {
  const cut = word.replace(/(?:ing|ies|ed|es|s)$/, '');
  return cut.length >= 3 ? cut : word;
}
