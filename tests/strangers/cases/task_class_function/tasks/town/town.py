class Town:
    pass
