"""Invented film titles, all different, from word lists of our own."""

import numpy as np

ADJECTIVES = (  # noqa: SIM905 (a literal would take a line for each word)
    "Amber Bitter Borrowed Broken Burning Careless Clockwork Crooked Distant Drowsy Electric "
    "Endless Faithful Feathered Forgotten Frozen Gentle Gilded Golden Hidden Hollow Hungry Idle "
    "Invisible Iron Jagged Last Late Little Lonely Lucky Marble Midnight Missing Narrow Nervous "
    "Northern Ordinary Paper Patient Perfect Quiet Reckless Restless Rusty Salted Scarlet Second "
    "Secret Silent Silver Sleepless Slow Southern Stolen Stubborn Sudden Tender Thirteenth Twisted "
    "Unlikely Velvet Wandering Wicked Wooden"
).split()
NOUNS = (  # noqa: SIM905 (a literal would take a line for each word)
    "Accordion Alibi Anchor Apprentice Archive Avenue Balcony Barber Bargain Beacon Bicycle "
    "Border Bridge Caravan Carnival Cartographer Cathedral Ceremony Chimney Circus Clerk Comet "
    "Compass Courier Crossing Daughter Detective Dinner Doorway Echo Elevator Engine Errand "
    "Escape Ferry Festival Fiddler Firefly Forest Fortune Garden Glacier Guest Harbour Harvest "
    "Horizon Hotel Hour Island Journey Juggler Kingdom Kite Ladder Lagoon Lantern Letter "
    "Lighthouse Locket Machine Maple Market Meadow Melody Mirror Monsoon Mountain Neighbour "
    "Night Notebook Orchard Orchestra Outlaw Pact Parade Passenger Photograph Pilot Postcard "
    "Promise Puppet Quarry Rehearsal Reunion Riddle River Sailor Season Shadow Signal Sparrow "
    "Station Stranger Summer Tailor Telegram Theatre Thief Thunder Tide Tower Trial Umbrella "
    "Valley Verdict Violin Voyage Waltz Whisper Window Winter Witness Wolf"
).split()


def invent_titles(n: int, rng: np.random.Generator) -> list[str]:
    """`n` different titles such as "The Velvet Ferry"; beyond the word lists come sequels."""
    a, b = len(ADJECTIVES), len(NOUNS)
    n_distinct = 2 * a * b + b * (b - 1)
    picks = rng.permutation(n_distinct)
    titles = []
    for index in range(n):
        sequel, pick = divmod(index, n_distinct)
        title = _title(int(picks[pick]))
        titles.append(f"{title} {sequel + 1}" if sequel else title)
    return titles


def _title(pick: int) -> str:
    """The title numbered `pick`: adjective and noun, the same with an article, two nouns."""
    a, b = len(ADJECTIVES), len(NOUNS)
    kind, pair = divmod(pick, a * b)
    if kind < 2:
        adjective, noun = divmod(pair, b)
        return f"{'The ' if kind else ''}{ADJECTIVES[adjective]} {NOUNS[noun]}"
    first, other = divmod(pick - 2 * a * b, b - 1)
    second = other + (other >= first)  # two different nouns
    return f"The {NOUNS[first]} and the {NOUNS[second]}"
