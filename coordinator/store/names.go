package store

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// Words of at most nine letters each, so that a name with its number stays
// within manifold.MaxAppName.
var (
	adjectives = strings.Fields(`
		agile amber ample ancient arctic autumn bold brave breezy bright brisk calm candid cedar clear clever
		cobalt coral cosmic crimson curious dapper daring dewy distant eager early elder fabled fair fierce
		floral fluent fresh frosty gentle gilded glad golden graceful hardy hazel hidden honest humble indigo
		ivory jade jolly keen kind lively loyal lucid lunar mellow merry mighty misty modest nimble noble
		olive opal patient placid polar proud quiet rapid ready rustic sandy scarlet serene sharp silent silver
		sleek snowy solar spry stark steady still stoic sturdy subtle sunny swift tidal tranquil vast velvet
		verdant vivid warm wild windy wise young zesty`)
	nouns = strings.Fields(`
		acorn alder anchor badger bay beacon birch bluff brook canyon cape cavern cliff cloud clover comet
		cove crane creek dawn delta desert dune dusk eagle echo ember falcon fern field finch fjord forest
		garden glacier glade gorge grove gulf harbor harvest haven heath heron hill island juniper lagoon lake
		lantern larch lark leaf ledge lynx maple marsh meadow mesa mist moon moss mountain oak oasis ocean
		orchard otter owl peak pebble pine plain plateau pond prairie puma quarry rain raven reef ridge river
		robin sail savanna sea shore sky snow sparrow spring spruce star stone storm stream summit sun thicket
		thunder tide trail tundra valley wave willow wind wood wren`)
)

// drawName draws a name like quiet-river-1234, one of about a hundred million.
func drawName() string {
	return fmt.Sprintf("%s-%s-%04d",
		adjectives[rand.N(len(adjectives))], nouns[rand.N(len(nouns))], rand.N(10_000))
}
