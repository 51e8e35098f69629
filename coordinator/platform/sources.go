package platform

import (
	"io"

	"manifold"
)

// Sources is where sources are uploaded to.
type Sources interface {
	New() (put, get string)
	Find(get string) (open func() (io.ReadCloser, error), err error)
}

func sourceRoutes(a *api) routes {
	return routes{
		"POST /sources": a.createSource,
		// As older clients ask for it.
		"POST /apps/{app}/sources": onApp(func(c *call, _ manifold.App) (answer, error) { return a.createSource(c) }),
	}
}

// createSource makes a place for a source. Its URLs are good for an hour, and
// all that is needed to use them.
func (a *api) createSource(c *call) (answer, error) {
	put, get := a.Sources.New()
	return created(object{"source_blob": object{"put_url": c.url(put), "get_url": c.url(get)}})
}
