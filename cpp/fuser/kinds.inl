// The projector kinds there are, one line each: KIND(the reference's class, the maker in a file of its own).
KIND(C2CProjector, make_gated_tower)
KIND(AblationProjector, make_ablated_tower)
KIND(AllInOneProjector, make_all_in_one)
