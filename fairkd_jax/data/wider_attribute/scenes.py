"""The 30 scenes of WIDER Attribute, in the order of their ids, and the 16 classes made of them.

Y. Li, C. Huang, C. C. Loy, X. Tang: Human Attribute Recognition by Deep Hierarchical Contexts, ECCV 2016.
"""

SCENES = (
    "Parade",
    "Handshaking",
    "Riot",
    "Dancing",
    "Funeral",
    "Cheering",
    "Meeting",
    "Stock_Market",
    "Ceremony",
    "Concerts",
    "Couple",
    "Family_Group",
    "Picnic",
    "Soldier_Patrol",
    "Spa",
    "Sports_Fan",
    "Surgeons",
    "Waiter_Waitress",
    "Running",
    "Basketball",
    "Football",
    "Soccer",
    "Ice_Skating",
    "Row_Boat",
    "Aerobics",
    "Celebration_Or_Party",
    "Dresses",
    "Rescue",
    "Angler",
    "Hockey",
)

CLASSES: dict[str, tuple[str, ...]] = {
    "Team_Sports": ("Basketball", "Football", "Soccer", "Hockey"),
    "Celebration": ("Funeral", "Ceremony", "Celebration_Or_Party"),
    "Parade": ("Parade",),
    "Waiter_Or_Waitress": ("Waiter_Waitress",),
    "Individual_Sports": ("Running", "Ice_Skating", "Aerobics"),
    "Surgeons": ("Surgeons",),
    "Spa": ("Spa",),
    "Law_Enforcement": ("Riot", "Soldier_Patrol"),
    "Business": ("Handshaking", "Meeting", "Stock_Market"),
    "Dresses": ("Dresses",),
    "Water_Activities": ("Row_Boat", "Angler"),
    "Picnic": ("Picnic",),
    "Rescue": ("Rescue",),
    "Cheering": ("Cheering", "Sports_Fan"),
    "Performance_And_Entertainment": ("Dancing", "Concerts"),
    "Family": ("Couple", "Family_Group"),
}

CLASS_NAMES = tuple(CLASSES)
_CLASS_OF_NAME = {scene: label for label, scenes in enumerate(CLASSES.values()) for scene in scenes}
# Class id of each scene id.
CLASS_OF_SCENE = tuple(_CLASS_OF_NAME[scene] for scene in SCENES)
