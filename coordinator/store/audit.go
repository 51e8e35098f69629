package store

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// MaxAudit is how many entries of one trail are kept: the newest.
const MaxAudit = 200

// maxAction bounds an entry's text, in bytes: a command line may be 32 KB.
const maxAction = 1024

// Entry is one line of an audit trail: who did what, when, from where. It
// never holds a secret or a config var's value.
type Entry struct {
	Seq           int64     `json:"seq"` // from 1, without gaps
	At            time.Time `json:"at"`
	User          string    `json:"user"`                    // email, as it was then
	Action        string    `json:"action"`                  // "Set FOO config vars (v4)"
	From          string    `json:"from,omitempty"`          // address
	Request       string    `json:"request,omitempty"`       // Request-Id
	Authorization string    `json:"authorization,omitempty"` // Authorization.ID of the token
}

// auditRoot lies beside root, so that an entry wakes nobody who waits for
// Changes. A trail is a ring: the entry with number n is at n modulo MaxAudit.
//
//	heads/SUBJECT        number of the newest entry
//	entries/SUBJECT/042  entry
const auditRoot = "/manifold-audit/"

func auditHead(subject string) string  { return auditRoot + "heads/" + subject }
func auditTrail(subject string) string { return auditRoot + "entries/" + subject + "/" }

// Author is who makes the changes of calls whose context has one: what each
// changed is then in the audit trail, in one step with the change, and webhooks
// learn who did it. Changes without an author are the platform's own.
type Author struct {
	ID, Email                    string // of the user
	From, Request, Authorization string // as in Entry
	Via                          string // "git push"; "" is the API

	changes []note
}

type authorKey struct{}

// By gives calls an author.
func By(ctx context.Context, a *Author) context.Context {
	return context.WithValue(ctx, authorKey{}, a)
}

func author(ctx context.Context) *Author {
	a, _ := ctx.Value(authorKey{}).(*Author)
	return a
}

// Changes returns what the author changed of a subject since it was last asked,
// in words, but for releases, which have words of their own in an app's log.
// The author's calls must have returned.
func (a *Author) Changes(subject string) (words []string) {
	for _, n := range a.changes {
		if n.subject == subject && !n.release {
			words = append(words, n.action)
		}
	}
	a.changes = nil
	return words
}

// note is an entry to be, of a subject: an app or a user by id.
type note struct {
	subject, action string
	release         bool
}

// note has the author's trail say what this transaction changes.
func (t *tx) note(subject, format string, args ...any) {
	if author(t.ctx) != nil && subject != "" {
		t.notes = append(t.notes, note{subject: subject, action: fmt.Sprintf(format, args...)})
	}
}

// enter writes the entries of what was noted. A trail's head is read, so that
// of two that meet one is tried again.
func (t *tx) enter(at time.Time) error {
	heads := map[string]int64{}
	for _, n := range t.notes {
		head, known := heads[n.subject]
		if !known {
			if _, err := t.get(auditHead(n.subject), &head); err != nil {
				return err
			}
		}
		heads[n.subject] = head + 1
		by := author(t.ctx)
		e := Entry{Seq: head + 1, At: at, User: by.Email, Action: n.action, From: by.From, Request: by.Request, Authorization: by.Authorization}
		if by.Via != "" {
			e.Action += " by " + by.Via
		}
		if len(e.Action) > maxAction {
			e.Action = strings.ToValidUTF8(e.Action[:maxAction], "") + "…"
		}
		if err := t.put(fmt.Sprintf("%s%03d", auditTrail(n.subject), e.Seq%MaxAudit), e); err != nil {
			return err
		}
	}
	for subject, head := range heads {
		if err := t.put(auditHead(subject), head); err != nil {
			return err
		}
	}
	return nil
}

// report leaves what was done with its author.
func (t *tx) report() {
	if by := author(t.ctx); by != nil {
		by.changes = append(by.changes, t.notes...)
	}
}

// Record adds to the trail of a subject what the author of ctx did that is no
// change of the store: it restarted a dyno.
func (s *Store) Record(ctx context.Context, subject, action string) error {
	done, err := s.turns.take(ctx, subject)
	if err != nil {
		return err
	}
	defer done()
	for range maxTries {
		t := s.begin(ctx)
		t.note(subject, "%s", action)
		if err := t.enter(s.stamp()); err != nil || len(t.writes) == 0 {
			return err
		}
		if done, err := s.engine.commit(ctx, t.seen, t.writes); err != nil || done {
			return err
		}
	}
	return ErrConflict
}

// Audit lists a subject's trail, oldest first.
func (s *Store) Audit(ctx context.Context, subject string) ([]Entry, error) {
	entries, err := list[Entry](ctx, s.engine, auditTrail(subject))
	slices.SortFunc(entries, func(a, b Entry) int { return cmp.Compare(a.Seq, b.Seq) })
	return entries, err
}
