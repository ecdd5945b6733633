// Writes vectors.json: what Go's own regexp package says about patterns and inputs, in the way in which Prometheus uses
// it (syntax.Perl with DotNL, the whole value). Run it with `go run generate.go` in this directory.
package main

import (
	"bytes"
	"encoding/json"
	"log"
	"math/rand"
	"os"
	"regexp"
	"regexp/syntax"
	"strings"
)

// pattern is one pattern with Go's verdict.
type pattern struct {
	Pattern string `json:"pattern"`
	// What Go says against it; empty if it is valid.
	Error string `json:"error,omitempty"`
	// Those of the inputs that it matches.
	Matches []string `json:"matches,omitempty"`
}

// Inputs that every pattern is held against.
var inputs = []string{
	"", "a", "b", "A", "ab", "aa", "aaa", "ba", "abc", "a\nb", "\n", "a\n", "\nb", "é", "É", "aé", "ß", "ẞ", "ſ", "K", "k", "\u212a",
	"0", "7", "٣", "_", "-", " ", "\t", "\v", "\u00a0", "]", "[", "^", "$", ".", "{", "}", "a{", "a{2", "a{,2}", "a.b", "a+b", "(a)",
	"\\", "\\d", "Q", "E", "x", "α", "Ω", "ω", "я", "日", "😀", "aaaaa", "foo", "foobar", "foo-bar", "bar", "a|b", "&&", "&", "~", "a-z",
	"\x07", "\x00", "\u200d", "\u0345", "ι", "Σ", "σ", "ς", "ǅ", "!", "z", "w", "é-", "\ufffd",
}

var byHand = []string{
	// Plain text, alternation, anchors, the dot.
	``, `a`, `abc`, `a|b`, `a||b`, `|`, `|a`, `a|`, `foo|foobar`, `foo|bar|`, `.`, `.*`, `.+`, `a.b`, `a.*`, `^a$`, `^a|b$`, `a^b`, `a$b`,
	`^^a$$`, `a|b|c`, `é`, `日|α`, `foo.bar`, `foo\.bar`, `(a|b)c?`, `$`, `^`, `^*`, `$*a`, `a\z`, `\Aa`, `\A\z`, `a\Z`, `\G`, `(^a)`, `(a$)|b`,
	`a)(b`, `a)|(b`,
	// Flags.
	`(?i)a`, `(?i)K`, `(?i)s`, `(?i)ß`, `(?i)σ`, `(?i)ι`, `(?i)É`, `a(?i)b`, `(?i:a)b`, `(?i)a(?-i)b`, `(a(?i)b)c`, `(?i)a|b`, `a|(?i)b|c`,
	`(?s).`, `(?-s).`, `(?-s)a.b`, `(?-s:.)`, `(?s-s).`, `(?m)^b`, `(?m)a$`, `(?m)a$\n^b`, `a$\nb`, `(?m:^)a`, `(?-m)a$`, `(?U)a*`, `(?U)a*?`,
	`(?ims-U)a.b`, `(?ii)a`, `(?)a`, `(?:)a`, `(?-)a`, `(?i-)a`, `(?-:a)`, `(?--i)a`, `(?x)a`, `(?u)a`, `(?R)a`, `(?i`, `(?`, `(?i:`, `(?i)*`,
	`a(?i)*`, `(?is-m:a.b)`, `(?i)[a-c]+`, `(?i)[^a]`, `(?i)\w`, `(?i)\W`, `(?i)[[:lower:]]`, `(?i)[[:^lower:]]`, `(?i)[^[:lower:]]`,
	`(?i)[k]`, `(?i)[^k]`, `(?i)[^\W]`, `(?i)[ſ]`, `(?i)\pL`, `(?i)\p{Lu}`, `(?i)\P{Lu}`, `(?i)\p{Ll}`, `(?i)[\p{Lu}]`, `(?i)[^\p{Lu}]`,
	`(?i)\p{Greek}`, `(?i)😀`, `(?i)\x{3c3}`, `(?i)\QAb\E`, `(?i)ǆ`, `(?i)\pN`, `(?i)\p{Any}`, `(?i)\p{ASCII}`, `(?i)\P{ASCII}`, `(?i)\d`,
	// Groups.
	`(a)`, `()`, `()*`, `(?:a)`, `(?P<n>a)`, `(?<n>a)`, `(?P<n>a)(?P<n>b)`, `(?<n>a)(?<n>b)`, `(?P<1>a)`, `(?P<>a)`, `(?P<n`, `(?P<n-a>a)`,
	`(?P<é>a)`, `(?<`, `(?P<`, `(?P=n)`, `(?P>n)`, `(?'n'a)`, `(?P<n>`, `(`, `)`, `a)`, `(a`, `((a)`, `(a))`, `(?=a)`, `(?!a)`, `(?<=a)a`, `(?<!a)a`,
	`(?>a)`, `(?#a)`, `(?|a)`, `(*)`, `(*a)`, `(|a)*`, `(a|)+`, `((((((((((a))))))))))`, `(?<n>a)b?`,
	// Repetition.
	`a*`, `a+`, `a?`, `a*?`, `a+?`, `a??`, `a{2}`, `a{2}?`, `a{2,}`, `a{2,3}`, `a{0}`, `a{0,}`, `a{0,0}b`, `a{,2}`, `a{2`, `a{`, `a{}`, `a{a}`, `a{2a}`,
	`a{01}`, `a{1,02}`, `a{ 2}`, `a{2, 3}`, `{2}`, `{`, `}`, `{a`, `a}`, `{,2}`, `*`, `+`, `?`, `*a`, `|*`, `a|*`, `(?:*)`, `a**`, `a*+`, `a+*`, `a++`, `a?+`,
	`a???`, `a*??`, `a{2}{3}`, `a{2}*`, `a*{2}`, `(a{2}){2}b?`, `a{1000}`, `a{1001}`, `a{1,1001}`, `a{1001,}`, `a{3,2}`, `a{99999999999}`,
	`a{1,99999999999}`, `(a{100}){10}`, `(a{100}){11}`, `(a{100,}){11}`, `((a{10}){10}){10}`, `((a{10}){10}){11}`, `(a{1000}){0}`, `(a{1000}){1}`,
	`(a{1000}){2}`, `(a{0,1000}){2}`, `(a*){1000}`, `((a{1000})|b){2}`, `(ab{500}c){2}`, `(ab{501}c){2}`, `\b*a`, `^{2}a`, `a{,}`, `a{1}{`, `(a{2}){500}(b{2}){500}`,
	`(a{2}){500}(b{3}){500}`, `((a{1000}){0}b){1000}`, `(((a{2}){0}){1000}){2}`,
	// Escapes.
	`\d`, `\D`, `\w`, `\W`, `\s`, `\S`, `\b`, `\B`, `\ba`, `a\b`, `\Ba`, `a\B`, `\Bé`, `é\b`, `a\bé`, `a\Bé`, `\bé`, `\d+`, `[\d]`, `[\D]`, `[^\d]`, `[^\D]`, `[\d\s]`,
	`\.`, `\\`, `\+`, `\_`, `\-`, `\ `, `\é`, `\q`, `\e`, `\E`, `\c`, `\cA`, `\y`, `\h`, `\H`, `\R`, `\X`, `\N`, `\K`, `\C`, `\u0061`, `\U0061`, `\`, `a\`, `[\`, `\"`, `\/`,
	`\a`, `\f`, `\t`, `\n`, `\r`, `\v`, `\0`, `\1`, `\8`, `\9`, `\01`, `\07`, `\11`, `\101`, `\141`, `\1411`, `\777`, `\08`, `\18`, `[\1]`, `[\0]`, `[\141]`,
	`\x61`, `\x6`, `\x`, `\x{61}`, `\x{}`, `\x{61`, `\x{110000}`, `\x{10FFFF}`, `\x{1F600}`, `\x{0000000061}`, `\x{6g}`, `\xg1`, `\x{FFFD}`, `\x{-1}`, `\x6é`,
	`\Qa.b\E`, `\Qa.b`, `\Q`, `\Q\E`, `\Q\E*`, `a\Q\E*`, `a*\Q\E*`, `a*\Q\E?`, `a*\Q\Eb`, `a+\Q\E{2}`, `a+(?i)?`, `\Qab\E*`, `\Qab\E+`, `\Q\\E`, `\Q(\E`, `\Q[\Ea]`, `\Qa\Eb\Ec`,
	`\Q日\E`, `\Qa|b\E`, `\Q\d\E`, `(\Q)\E)`, `[\Qa\E]`, `[\E]`, `(\Qa)`,
	// Classes.
	`[a]`, `[^a]`, `[a-c]`, `[^a-c]`, `[]`, `[^]`, `[]a]`, `[^]a]`, `[a`, `[`, `[^`, `[a-`, `[a-]`, `[-a]`, `[^-a]`, `[--a]`, `[a--]`, `[a-b-c]`, `[a\-z]`, `[z-a]`, `[a-\d]`, `[\d-z]`,
	`[\d-]`, `[+--]`, `[[a]`, `[[]`, `[a[b]`, `[a[b]]`, `[[a]]`, `[a&&b]`, `[a-z&&[^b]]`, `[a--b]`, `[a~~b]`, `[&&]`, `[~]`, `[a||b]`, `[^^]`, `[a^]`, `[\^]`, `[\]]`, `[\[]`, `[\\]`,
	`[.]`, `[$]`, `[*+?]`, `[(a)]`, `[{}]`, `[|]`, `[ ]`, `[#]`, `[a-é]`, `[α-ω]`, `[^α-ω]`, `[日-本]`, `[\x61-\x63]`, `[\x{1F600}-\x{1F64F}]`, `[\x00-\x{10FFFF}]`, `[^\x00-\x{10FFFF}]`,
	`[\n]`, `[^\n]`, `(?-s)[^a]`, `[\t-\r]`, `[\b]`, `[\B]`, `[\A]`, `[\z]`, `[\w.]`, `[^\w]`, `[^\W]`, `[\W]`, `[\s\S]`, `[^\s\S]`, `[\S]`, `[\pL]`, `[^\pL]`, `[\p{Greek}a]`, `[\P{Greek}]`,
	`[^\P{Greek}]`, `[\p{^Greek}]`, `[\p]`, `[\pL-z]`, `[a-\pL]`,
	`[[:alpha:]]`, `[[:^alpha:]]`, `[^[:alpha:]]`, `[^[:^alpha:]]`, `[[:digit:][:space:]]`, `[[:word:]]`, `[[:ascii:]]`, `[[:blank:]]`, `[[:cntrl:]]`, `[[:graph:]]`, `[[:print:]]`,
	`[[:punct:]]`, `[[:space:]]`, `[[:upper:]]`, `[[:xdigit:]]`, `[[:alnum:]]`, `[[:lower:]]`, `[[:foo:]]`, `[[:Alpha:]]`, `[[:^foo:]]`, `[[::]]`, `[[:alpha]]`, `[[:alpha:`, `[:alpha:]`,
	`[a[:digit:]b]`, `[[:alpha:]-z]`, `[a-[:alpha:]]`, `[[.a.]]`, `[[=a=]]`, `[[:a]:]]`,
	// Unicode properties.
	`\pL`, `\PL`, `\pN`, `\p{L}`, `\P{L}`, `\p{^L}`, `\P{^L}`, `\p{Lu}`, `\p{Greek}`, `\P{Greek}`, `\p{greek}`, `\p{Latin}`, `\p{Han}`, `\p{Cyrillic}`, `\p{Any}`, `\P{Any}`, `\p{any}`, `\p{ASCII}`,
	`\p{Assigned}`, `\P{Assigned}`, `\p{Cn}`, `\pC`, `\p{Cs}`, `\P{Cs}`, `[\p{Cs}a]`, `[^\p{Cs}]`, `\p{LC}`, `\p{lc}`, `\p{Letter}`, `\p{Uppercase_Letter}`, `\p{uppercase letter}`, `\p{punct}`, `\p{digit}`,
	`\p`, `\P`, `\p{`, `\p{}`, `\p{L`, `\pX`, `\pé`, `\p{Foo}`, `\p{Alphabetic}`, `\p{White_Space}`, `\p{gc=Lu}`, `\p{sc=Greek}`, `\p{Script=Greek}`, `\p{Grek}`, `\p{Emoji}`, `\p{^}`, `\p{^^L}`, `\p{ L }`,
	`\p{Zs}`, `\p{Zl}`, `\pZ`, `\pS`, `\pP`, `\pM`, `\p{Inherited}`, `\p{Common}`, `\p{Nd}`, `\pl`, `\p{Sm}+`,
	// What people write.
	`prod|staging`, `prod-.+`, `.*-eu-.*`, `us-(east|west)-[0-9]+`, `[a-z0-9]([-a-z0-9]*[a-z0-9])?`, `(?i:PROD)`, `.+`, `()`, `^(?:foo|bar)$`, `foo.*|bar`, `[^/]+`, `10\.0\.\d{1,3}\.\d{1,3}(:\d+)?`,
	`(.+)\.(.+)`, `\w+@\w+`, `^$`, `.{3}`, `..`, `(?:foo)?bar`, `[A-Za-z_][A-Za-z0-9_]*`,
}

func verdict(text string) pattern {
	result := pattern{Pattern: text}
	parsed, err := syntax.Parse(text, syntax.Perl|syntax.DotNL)
	if err != nil {
		result.Error = err.Error()
		return result
	}
	re := regexp.MustCompile("^(?s:" + parsed.Simplify().String() + ")$")
	for _, input := range inputs {
		if re.MatchString(input) {
			result.Matches = append(result.Matches, input)
		}
	}
	return result
}

// Pieces that patterns by chance are made of.
var pieces = strings.Split("a b c é Σ k 0 . * + ? | ( ) (?: (?i) (?-s) (?m) (?P<n> [ ] [^ - ^ $ \\d \\W \\s \\b \\B {2} {0,1} {3,2} {, } \\Q \\E \\pL \\x{61} "+
	"[[:alpha:]] [a-c] [^b] \\z \\A \\ && ~~ [a&&b] \\141 \\. _ \\p{Greek} :] [: (?U) # \\n", " ")

func main() {
	vectors := []pattern{}
	seen := map[string]bool{}
	for _, text := range byHand {
		if !seen[text] {
			seen[text] = true
			vectors = append(vectors, verdict(text))
		}
	}
	random := rand.New(rand.NewSource(1))
	for len(vectors) < 1500 {
		var text strings.Builder
		for range 1 + random.Intn(7) {
			text.WriteString(pieces[random.Intn(len(pieces))])
		}
		// Half of them would be refused for the same few reasons.
		if _, err := syntax.Parse(text.String(), syntax.Perl|syntax.DotNL); seen[text.String()] || err != nil && random.Intn(4) > 0 {
			continue
		}
		seen[text.String()] = true
		vectors = append(vectors, verdict(text.String()))
	}
	var out bytes.Buffer
	out.WriteString(`{"inputs":` + encode(inputs) + ",\n\"patterns\":[\n")
	for i, vector := range vectors {
		out.WriteString(encode(vector))
		if i < len(vectors)-1 {
			out.WriteString(",")
		}
		out.WriteString("\n")
	}
	out.WriteString("]}\n")
	if err := os.WriteFile("vectors.json", out.Bytes(), 0o644); err != nil {
		log.Fatal(err)
	}
}

func encode(value any) string {
	var line bytes.Buffer
	encoder := json.NewEncoder(&line)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		log.Fatal(err)
	}
	return strings.TrimSuffix(line.String(), "\n")
}
