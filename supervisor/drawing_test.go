package supervisor

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the drawing of the transition table into docs/dynos.md")

// Where the drawing lies, and what stands around it.
const (
	drawnIn    = "../docs/dynos.md"
	drawBegins = "<!-- drawn from supervisor/table.go: go test ./supervisor -run Drawing -update -->\n"
	drawEnds   = "<!-- end of the drawing -->\n"
)

// TestDrawing: the documentation shows the table as it is.
func TestDrawing(t *testing.T) {
	text, err := os.ReadFile(drawnIn)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(text), drawBegins)
	drawn, after, ends := strings.Cut(rest, drawEnds)
	if !found || !ends {
		t.Fatalf("%s has no place for the drawing, between\n%s%s", drawnIn, drawBegins, drawEnds)
	}
	want := drawing() + "\n" + rows()
	if *update {
		if err := os.WriteFile(drawnIn, []byte(before+drawBegins+want+drawEnds+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if drawn != want {
		t.Errorf("%s does not show the table as it is; draw it again: go test ./supervisor -run Drawing -update", drawnIn)
	}
}

// drawing is the table as a Mermaid state diagram: an arrow for each pair of
// states, with all that moves a dyno along it.
func drawing() string {
	type pair struct{ from, to State }
	var order []pair
	on := map[pair][]string{}
	for _, a := range table {
		p := pair{a.From, a.To}
		if on[p] == nil {
			order = append(order, p)
		}
		if label := string(a.On); !slices.Contains(on[p], label) {
			on[p] = append(on[p], label)
		}
	}
	var b strings.Builder
	b.WriteString("```mermaid\nstateDiagram-v2\n    [*] --> " + string(Created) + "\n")
	for _, p := range order {
		fmt.Fprintf(&b, "    %s --> %s: %s\n", p.from, p.to, strings.Join(on[p], ", "))
	}
	b.WriteString("    " + string(Gone) + " --> [*]\n```\n")
	return b.String()
}

// rows is the table as a table. What a step does is found by doing it.
func rows() string {
	var b strings.Builder
	b.WriteString("| in | on | sent by | where | goes to | shown as | and does |\n|---|---|---|---|---|---|---|\n")
	for _, a := range table {
		where := ""
		if a.When != nil {
			where = a.When.name
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s | %s |\n", a.From, a.On, OwnerOf(a.On), where, a.To, a.To.Public(), strings.Join(verbs(a), ", "))
	}
	return b.String()
}

// verbs are what an arrow may do, but for what it says.
func verbs(a arrow) (all []string) {
	s := &step{policy: DefaultPolicy, from: a.From, d: Dyno{Plan: Plan{Health: "/"}, State: a.To, Run: "run", Hangups: 1, Due: epoch}, e: Event{Kind: a.On, Run: "run", At: epoch}}
	a.Then(s)
	for _, e := range s.effects {
		if e.Do != Say {
			all = append(all, string(e.Do))
		}
	}
	return all
}
