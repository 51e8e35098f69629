package why

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"manifold"
)

const (
	maxReleases = 5   // of one app
	maxApps     = 500 // those seen last
)

// Releases remembers of each app's last releases what this host saw of them,
// so that it can say what changed. A config var is kept as its name and a
// keyed hash of its value: enough to see that it changed, and no more. Safe
// for concurrent use.
type Releases struct {
	path string

	mu   sync.Mutex
	kept releases
}

// releases is the file.
type releases struct {
	Key  []byte               `json:"key"` // of the hashes; drawn once
	Apps map[string][]release `json:"apps"`
}

type release struct {
	Version     int               `json:"version"`
	Description string            `json:"description,omitempty"`
	Commit      string            `json:"commit,omitempty"`
	Seen        time.Time         `json:"seen"` // first, on this host
	Slug        string            `json:"slug"` // digest
	Vars        map[string]string `json:"vars"`
	Commands    map[string]string `json:"commands"` // by process type
	Sizes       map[string]string `json:"sizes"`
}

// NewReleases keeps them in the file at path. One that is not there, or cannot
// be used, is begun anew.
func NewReleases(path string) *Releases {
	r := &Releases{path: path}
	text, err := os.ReadFile(path)
	if err != nil || json.Unmarshal(text, &r.kept) != nil || len(r.kept.Key) != sha256.Size || r.kept.Apps == nil {
		r.kept = releases{Key: make([]byte, sha256.Size), Apps: map[string][]release{}}
		_, _ = rand.Read(r.kept.Key) // never fails
	}
	return r
}

// Note remembers what an assignment says of its release.
func (r *Releases) Note(a manifold.Assignment, now time.Time) error {
	typ, _, err := manifold.SplitDynoName(a.Dyno)
	if err != nil || a.Kind != manifold.KindFormation || a.Release == 0 || len(a.Layers) == 0 {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	list := r.kept.Apps[a.App]
	i := slices.IndexFunc(list, func(k release) bool { return k.Version == a.Release })
	if i < 0 {
		list = append(list, r.release(a, now))
		slices.SortFunc(list, func(a, b release) int { return a.Version - b.Version })
		list = list[max(len(list)-maxReleases, 0):]
		if i = slices.IndexFunc(list, func(k release) bool { return k.Version == a.Release }); i < 0 {
			return nil // older than all that are kept
		}
	} else if list[i].Commands[typ] == a.Command && list[i].Sizes[typ] == a.Size.Name {
		return nil
	}
	list[i].Commands[typ], list[i].Sizes[typ] = a.Command, a.Size.Name
	r.kept.Apps[a.App] = list
	r.forget()
	return r.save()
}

func (r *Releases) release(a manifold.Assignment, now time.Time) release {
	k := release{
		Version: a.Release, Seen: now, Slug: a.Layers[0].Digest, Commit: a.Commit, Description: a.Description,
		Vars: map[string]string{}, Commands: map[string]string{}, Sizes: map[string]string{},
	}
	for name, value := range a.Env {
		h := hmac.New(sha256.New, r.kept.Key)
		fmt.Fprintf(h, "%d %s %s", len(name), name, value)
		k.Vars[name] = hex.EncodeToString(h.Sum(nil)[:8])
	}
	return k
}

// forget drops the apps that were released longest ago, beyond maxApps.
func (r *Releases) forget() {
	if len(r.kept.Apps) <= maxApps {
		return
	}
	seen := func(app string) time.Time { list := r.kept.Apps[app]; return list[len(list)-1].Seen }
	apps := slices.SortedFunc(maps.Keys(r.kept.Apps), func(a, b string) int { return seen(a).Compare(seen(b)) })
	for _, app := range apps[:len(apps)-maxApps] {
		delete(r.kept.Apps, app)
	}
}

func (r *Releases) save() error {
	text, err := json.Marshal(r.kept)
	if err == nil {
		err = os.WriteFile(r.path+".new", text, 0o600)
	}
	if err == nil {
		err = os.Rename(r.path+".new", r.path)
	}
	if err != nil {
		return fmt.Errorf("keep what is known of releases: %w", err)
	}
	return nil
}

// Change is what a release changed, as far as this host knows.
type Change struct {
	Release     int       `json:"release"`
	Description string    `json:"description,omitempty"`
	Commit      string    `json:"commit,omitempty"`
	Seen        time.Time `json:"seen"`            // first on this host
	Since       int       `json:"since,omitempty"` // the release it is compared with; 0: none is known
	Slug        bool      `json:"slug"`            // the code is another
	Commands    []string  `json:"commands,omitempty"`
	Sizes       []string  `json:"sizes,omitempty"`
	Added       []string  `json:"added,omitempty"` // config vars, by name
	Removed     []string  `json:"removed,omitempty"`
	Changed     []string  `json:"changed,omitempty"`
}

// Change says what a release changed against the one before it that this host
// saw; nil if it does not know the release.
func (r *Releases) Change(app string, version int) *Change {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := r.kept.Apps[app]
	i := slices.IndexFunc(list, func(k release) bool { return k.Version == version })
	if i < 0 {
		return nil
	}
	is := list[i]
	c := &Change{Release: version, Description: is.Description, Commit: is.Commit, Seen: is.Seen}
	if i == 0 {
		return c
	}
	was := list[i-1]
	c.Since, c.Slug = was.Version, was.Slug != is.Slug
	c.Commands, c.Sizes = differ(was.Commands, is.Commands), differ(was.Sizes, is.Sizes)
	c.Changed = differ(was.Vars, is.Vars)
	c.Added, c.Removed = missing(is.Vars, was.Vars), missing(was.Vars, is.Vars)
	return c
}

// differ lists the keys both have with different values.
func differ(a, b map[string]string) (keys []string) {
	for k, v := range b {
		if was, ok := a[k]; ok && was != v {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	return keys
}

// missing lists the keys of a that b has not.
func missing(a, b map[string]string) (keys []string) {
	for k := range a {
		if _, ok := b[k]; !ok {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	return keys
}
